//! The bodies of answers: into memory, into a writer, or a glance at one of an error.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use ureq::Body;
use ureq::http::{HeaderMap, Response, header};

use crate::echo;
use crate::error::Error;
use crate::failure::Failure;
use crate::json;

/// How much of a body is checked before any of it is handed on, and the most that is
/// handed on at once.
const PIECE: usize = 64 * 1024;

/// When [`Client::copy`](crate::Client::copy) checks that a body is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Always, whatever the content type says.
    Json,
    /// If the content type says JSON: `*/json` or `*+json`.
    ContentType,
}

/// What [`Client::copy`](crate::Client::copy) copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// How many bytes.
    pub bytes: u64,
    /// Whether they were checked to be JSON.
    pub json: bool,
    /// Whether the last byte is a line feed.
    pub ends_in_line_feed: bool,
}

/// Refuses an answer in an encoding that ureq doesn't undo.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Error> {
    let encoded = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    match encoded {
        true => Err(Error::answer("its content encoding isn't supported")),
        false => Ok(()),
    }
}

/// Reads a body whole, up to `limit` bytes.
pub(crate) fn read(response: Response<Body>, limit: u64, host: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut reader = response.into_body().into_reader();
    // The byte beyond the limit tells a longer body; reading to the end of a shorter
    // one is what lets the connection serve the next call.
    (&mut reader)
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::in_body(error, host))?;
    if bytes.len() as u64 > limit {
        let reason = format!("it is larger than the limit of {limit} bytes");
        return Err(Error::answer(reason).into());
    }
    Ok(bytes)
}

/// Parses a body. The text of a parser's error may quote the body, so only its place
/// is told.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Eof => Failure::cut(match bytes.is_empty() {
                true => json::Fault::Empty.to_string(),
                false => json::Fault::Unfinished.to_string(),
            }),
            serde_json::error::Category::Data => Error::answer(format!(
                "its JSON isn't of the expected shape (line {line}, column {column})"
            ))
            .into(),
            _ => Error::answer(format!("not JSON (line {line}, column {column})")).into(),
        }
    })
}

/// Copies a body to `out` in constant memory.
pub(crate) fn copy(
    response: Response<Body>,
    check: Check,
    out: &mut dyn Write,
    host: &str,
) -> Result<Copied, Failure> {
    let mut checker =
        (check == Check::Json || says_json(response.headers())).then(json::Checker::new);
    let mut reader = response.into_body().into_reader();
    let mut copied = Copied {
        bytes: 0,
        json: checker.is_some(),
        ends_in_line_feed: false,
    };
    // What fits into the first piece is seen to its end before any of it is handed on.
    let mut piece = Vec::new();
    let mut length = (&mut reader)
        .take(PIECE as u64)
        .read_to_end(&mut piece)
        .map_err(|error| Failure::in_body(error, host))?;
    let mut ended = length < PIECE;
    loop {
        if let Some(checker) = &mut checker {
            checker
                .feed(&piece[..length])
                .and_then(|()| if ended { checker.finish() } else { Ok(()) })
                .map_err(|fault| json_failure(fault).handed_on(copied.bytes > 0))?;
        }
        out.write_all(&piece[..length]).map_err(output)?;
        copied.bytes += length as u64;
        if let Some(last) = piece[..length].last() {
            copied.ends_in_line_feed = *last == b'\n';
        }
        if ended {
            out.flush().map_err(output)?;
            return Ok(copied);
        }
        // After it, what comes is handed on as it comes: the buffer is full-grown now.
        length = reader
            .read(&mut piece)
            .map_err(|error| Failure::in_body(error, host).handed_on(true))?;
        ended = length == 0;
    }
}

fn json_failure(fault: json::Fault) -> Failure {
    match fault {
        json::Fault::Empty | json::Fault::Unfinished => Failure::cut(fault.to_string()),
        _ => Error::answer(fault.to_string()).into(),
    }
}

fn output(error: io::Error) -> Error {
    Error::Output(Arc::new(error))
}

/// Whether the content type is `*/json` or `*+json` (RFC 6839).
fn says_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let essence = text.split(';').next().unwrap_or_default().trim();
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// Returns what may be shown of the body of a 4xx or 5xx. A body that is read to its
/// end leaves the connection to the next call; one that is long, slow or broken
/// isn't worth waiting for, since the status is known.
pub(crate) fn error_text(
    response: Response<Body>,
    secrets: &[&str],
    patience: Duration,
) -> Option<String> {
    let start = Instant::now();
    let mut body = Vec::new();
    let mut reader = response
        .into_body()
        .into_reader()
        .take(echo::READ as u64 + 1);
    let mut piece = [0; 4096];
    while start.elapsed() < patience {
        match reader.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(length) => body.extend_from_slice(&piece[..length]),
        }
    }
    echo::clean(&body, secrets)
}
