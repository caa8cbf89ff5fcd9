//! The bodies of responses: into memory, into a type, into a writer, or an excerpt of an
//! error's.

#[cfg(feature = "gzip")]
use std::io::ErrorKind::UnexpectedEof;
use std::io::{self, Read, Write};
use std::{sync::Arc, time::Instant};

use serde::Deserialize;
use ureq::http::header;

use super::attempt::AttemptError;
use super::{Call, Response, json, redact};
use crate::{error::Error, event::Event};

/// How much of a body is checked before any of it is delivered, and the most that is
/// delivered at once.
const CHUNK: usize = 64 * 1024;

/// When [`Session::copy`](crate::Session::copy) checks that a body is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JsonCheck {
    /// Whatever the content type is.
    Always,
    /// If the content type is that of JSON: `*/json` or `*+json`.
    IfDeclared,
    /// Not at all.
    Never,
}

/// What [`Session::copy`](crate::Session::copy) copied.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CopySummary {
    /// How many bytes, after decompression.
    pub bytes: u64,
    /// The content type, if the response has one in visible ASCII.
    pub content_type: Option<String>,
}

impl CopySummary {
    /// Whether the content type is that of JSON: `*/json` or `*+json` (RFC 6839).
    pub fn is_json(&self) -> bool {
        let content_type = self.content_type.as_deref().unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        essence.ends_with("/json") || essence.ends_with("+json")
    }
}

impl Response<'_> {
    /// Whether the end of the connection is all that ends the body, so that one that was
    /// truncated can't be told from a whole one (RFC 9112, section 6.3).
    fn is_close_delimited(&self) -> bool {
        self.inner.body().content_length().is_none()
            && !self.inner.headers().contains_key(header::TRANSFER_ENCODING)
    }

    /// Whether the body is in an encoding that ureq hasn't decoded.
    fn is_encoded(&self) -> bool {
        let mut encodings = self.inner.headers().get_all(header::CONTENT_ENCODING).iter();
        encodings.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
    }

    /// Returns a reader of the decoded body, and refuses one in an encoding that ureq doesn't
    /// decode. An empty one is empty whatever encoding it claims.
    fn reader(&mut self) -> Result<impl Read, AttemptError> {
        let (call, is_encoded) = (self.call, self.is_encoded());
        let mut reader = self.inner.body_mut().as_reader();
        let mut first = [0];
        let length = match reader.read(&mut first).map_err(ureq::Error::from) {
            Ok(1) if is_encoded => {
                return Err(call.invalid_response("the content encoding isn't supported").into());
            }
            Ok(length) => length as u64,
            // ureq looks for gzip's header in an empty body as well.
            #[cfg(feature = "gzip")]
            Err(ureq::Error::Decompress(_, error)) if error.kind() == UnexpectedEof => 0,
            Err(error) => return Err(call.failure(error, Some(0))),
        };
        let rest = if length == 0 { 0 } else { u64::MAX };
        Ok(io::Cursor::new(first).take(length).chain(reader.take(rest)))
    }

    /// Reads the body whole, up to the limit of the call.
    pub(crate) fn read(mut self) -> Result<Self, AttemptError> {
        let (call, limit, mut bytes) = (self.call, self.call.limits.body, Vec::new());
        // The byte beyond the limit tells a longer body; reading to the end of a shorter
        // one is what lets the connection serve the next call.
        let read = self.reader()?.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| call.failure(error, Some(bytes.len() as u64)))?;
        if bytes.len() as u64 > limit {
            let reason = format!("the response is larger than the limit of {limit} bytes");
            return Err(call.invalid_response(reason).into());
        }
        Ok(Self { bytes, ..self })
    }

    /// Parses the body, which has been read, as JSON.
    pub(crate) fn parse<'de, T: Deserialize<'de>>(&'de self) -> Result<T, AttemptError> {
        serde_json::from_slice(&self.bytes).map_err(|error| {
            let mut checker = json::Checker::new();
            let reason = match checker.feed(&self.bytes).and_then(|()| checker.finish()) {
                _ if error.is_data() => format!("the JSON doesn't fit: {}", misfit(&error)),
                Err(error) => return invalid_json(error, self.is_close_delimited(), self.call),
                // It is well-formed all the same.
                Ok(()) => "the JSON holds a number or an escape without a value".to_owned(),
            };
            self.call.invalid_response(reason).into()
        })
    }

    /// Copies the body to `out` in constant memory.
    pub(crate) fn copy(
        mut self,
        check: JsonCheck,
        out: &mut dyn Write,
    ) -> Result<CopySummary, AttemptError> {
        let content_type = self.header(header::CONTENT_TYPE).map(str::to_owned);
        let mut copied = CopySummary { bytes: 0, content_type };
        let is_checked =
            check == JsonCheck::Always || check == JsonCheck::IfDeclared && copied.is_json();
        let checker = is_checked.then(json::Checker::new);
        self.copy_chunks(checker, out, &mut copied.bytes)
            .map_err(|error| error.after_delivery(copied.bytes))?;
        Ok(copied)
    }

    /// Copies chunk by chunk what passes the check.
    fn copy_chunks(
        &mut self,
        mut checker: Option<json::Checker>,
        out: &mut dyn Write,
        delivered: &mut u64,
    ) -> Result<(), AttemptError> {
        let (call, is_close_delimited) = (self.call, self.is_close_delimited());
        let output = |error| Error::Output(Arc::new(error));
        let (mut reader, mut chunk) = (self.reader()?, Vec::new());
        // What fits into the first chunk is seen to its end before any of it is delivered.
        let first = reader.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
        let mut length = first.map_err(|error| call.failure(error, Some(chunk.len() as u64)))?;
        let mut is_end = length < CHUNK;
        loop {
            if let Some(checker) = &mut checker {
                let fed = checker.feed(&chunk[..length]);
                fed.and_then(|()| if is_end { checker.finish() } else { Ok(()) })
                    .map_err(|error| invalid_json(error, is_close_delimited, call))?;
            }
            out.write_all(&chunk[..length]).map_err(output)?;
            *delivered += length as u64;
            if is_end {
                return out.flush().map_err(|error| output(error).into());
            }
            (call.http.on_event)(&Event::Body { bytes: *delivered });
            // From here on, what comes is delivered as it comes: the buffer is full-grown.
            let read = reader.read(&mut chunk);
            length = read.map_err(|error| call.failure(error, Some(*delivered)))?;
            is_end = length == 0;
        }
    }

    /// Returns what may be shown of the body of an error response. One that is read to its
    /// end leaves the connection to the next call; one that is long, slow or broken isn't
    /// worth waiting for, since the status is known.
    pub(super) fn error_excerpt(mut self) -> Option<String> {
        let (call, start) = (self.call, Instant::now());
        let (mut body, mut chunk) = (Vec::new(), [0; 4096]);
        let mut reader = self.inner.body_mut().as_reader().take(redact::SCAN_LIMIT as u64 + 1);
        while start.elapsed() < call.limits.read {
            let length = reader.read(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..length]);
            if length == 0 {
                let content_type = self.header(header::CONTENT_TYPE);
                let excerpt = call.redactor().error_excerpt(&body, content_type);
                return excerpt.filter(|_| !self.is_encoded());
            }
        }
        None
    }
}

/// What serde says of a value that doesn't fit a type, without the value.
fn misfit(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (text, _) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
    let place = format!("line {}, column {}", error.line(), error.column());
    if text.starts_with("missing field `") || text.starts_with("duplicate field `") {
        return format!("{text} ({place})");
    }
    // What a type expects stands last, and is the type's own text.
    match text.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected} ({place})"),
        None => format!("another value is expected ({place})"),
    }
}

fn invalid_json(error: json::Error, is_close_delimited: bool, call: &Call<'_>) -> AttemptError {
    let (operation, reason) = (call.operation.clone(), error.to_string());
    let is_truncated = error == json::Error::Unfinished && is_close_delimited;
    Error::InvalidResponse { operation, reason, is_truncated }.into()
}
