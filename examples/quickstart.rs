//! The whole job, against a fake API: no account is needed.
//!
//! `cargo run --example quickstart`

#[allow(dead_code)] // The tests use the rest of it.
#[path = "../tests/it/support/fake_api/mod.rs"]
mod fake_api;

use here_datalens::{Client, Credentials, Password};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = fake_api::FakeApi::start();

    let credentials = Credentials::new(fake_api::APP_ID, fake_api::APP_CODE);
    let client = Client::builder(credentials).base_url(server.base_url()).build()?;
    let session = client.sign_in(fake_api::EMAIL, &Password::new(fake_api::PASSWORD))?;
    let datasets = session.datasets()?;
    println!("{datasets:#}");
    Ok(())
}
