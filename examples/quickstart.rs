//! The whole job, against a stand-in of the API: no account is needed.
//!
//! `cargo run --example quickstart`

#[allow(dead_code)] // The tests use the rest of it.
#[path = "../tests/support/stand_in.rs"]
mod stand_in;

use here_datalens::{Client, Credentials, Password};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = stand_in::StandIn::start();

    let credentials = Credentials::new(stand_in::APP_ID, stand_in::APP_CODE);
    let client = Client::builder(credentials)
        .base_url(server.base_url())
        .build()?;
    let session = client.sign_in(stand_in::USER_NAME, &Password::new(stand_in::PASSWORD))?;
    let datasets = client.datasets(session.access_token())?;
    println!("{datasets:#}");
    Ok(())
}
