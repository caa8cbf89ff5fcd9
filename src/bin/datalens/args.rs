//! The command line, as a pure function of its arguments.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
Signs in to HERE's Geovisualization (Data Lens) API and prints a resource as JSON.

Usage: datalens [OPTIONS] USERNAME [RESOURCE]

  USERNAME  the e-mail address of the HERE account
  RESOURCE  a path below /v1/, with its own query if it needs one
            [default: datasets/]

Options:
  -t, --token          print the access token instead of a resource
      --header         print 'Authorization: Bearer <token>', for curl -H @-
      --password-stdin read the password from standard input, up to its end,
                       less one final line break
  -s, --session FILE   keep the session in FILE: a token that is still good is used,
                       an old one refreshed; else the password is asked for
      --base-url URL   another address than https://datalens.api.here.com
      --cacert FILE    PEM certificates to trust instead of the built-in ones
      --timeout SECONDS
                       the most that each whole call may take, its body included;
                       none by default
      --retry N        send a call again, up to N times, after a failure that may pass:
                       no connection, 429 or 503; reads also after a reset, a timeout,
                       a cut answer, 500, 502 or 504; --timeout holds for each try
  -h, --help           print this help
  -V, --version        print the version

Environment:
  HERE_APP_ID, HERE_APP_CODE  the application's credentials (required)
  DATALENS_PASSWORD           the password; else it is asked for on the terminal
  DATALENS_BASE_URL           as --base-url
  SSL_CERT_FILE               as --cacert
  https_proxy, all_proxy, no_proxy and their upper-case forms, as curl reads them

Whatever --timeout is: a name is looked up within 10 s, a connection (TLS included)
made within 15 s, an answer begun within 60 s, no stall in a body lasts longer than
60 s, and a sign-in is over within 60 s.

A session in FILE is one account's; only its owner can read it. 'rm FILE' forgets it.

Exit status:
  0    done
  1    something on this machine failed, such as writing the output
  2    usage, a missing or unusable setting, no password: nothing was sent
  3    the server refused the credentials or the token
  4    the server wasn't reached, or not in time, or not safely
  5    the server answered something else than it should
  130  interrupted at the prompt
";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Help,
    Version,
    Run(Options),
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) user_name: String,
    pub(crate) print: Print,
    pub(crate) password_stdin: bool,
    pub(crate) session: Option<PathBuf>,
    pub(crate) base_url: Option<String>,
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: u32,
}

/// What is printed.
#[derive(Debug, PartialEq)]
pub(crate) enum Print {
    Resource(String),
    Token,
    Header,
}

impl Default for Print {
    fn default() -> Self {
        Self::Resource(DEFAULT_RESOURCE.into())
    }
}

pub(crate) const DEFAULT_RESOURCE: &str = "datasets/";

/// Reads the arguments after the program's name. A message never quotes a value: it
/// may be a secret in the wrong place.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Whoever asks for help gets it, whatever else is wrong.
    let mut options = arguments.iter().take_while(|argument| *argument != "--");
    if options.any(|argument| argument == "-h" || argument == "--help") {
        return Ok(Command::Help);
    }
    match read(&arguments)? {
        Asked { version: true, .. } => Ok(Command::Version),
        asked => asked.options().map(Command::Run),
    }
}

/// The arguments as they stand there.
#[derive(Default)]
struct Asked {
    version: bool,
    token: bool,
    header: bool,
    password_stdin: bool,
    session: Option<OsString>,
    base_url: Option<OsString>,
    cacert: Option<OsString>,
    timeout: Option<OsString>,
    retry: Option<OsString>,
    operands: Vec<OsString>,
}

fn read(arguments: &[OsString]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default();
        if text == "--" {
            asked.operands.extend(arguments.cloned());
            break;
        }
        if !argument.as_encoded_bytes().starts_with(b"-") || text == "-" {
            asked.operands.push(argument.clone());
            continue;
        }
        let (name, attached) = split(argument);
        match (name.as_str(), &attached) {
            ("-V" | "--version", None) => asked.version = true,
            ("-t" | "--token", None) => asked.token = true,
            ("--header", None) => asked.header = true,
            ("--password-stdin", None) => asked.password_stdin = true,
            ("-s" | "--session" | "--base-url" | "--cacert" | "--timeout" | "--retry", _) => {
                let value = attached.or_else(|| arguments.next().cloned());
                let place = match name.as_str() {
                    "-s" | "--session" => &mut asked.session,
                    "--base-url" => &mut asked.base_url,
                    "--cacert" => &mut asked.cacert,
                    "--timeout" => &mut asked.timeout,
                    _ => &mut asked.retry,
                };
                if place.is_some() {
                    let name = if name == "-s" { "--session" } else { &name };
                    return Err(format!("{name} is given twice"));
                }
                *place = Some(value.ok_or_else(|| format!("{name} needs a value"))?);
            }
            (
                "-h" | "--help" | "-V" | "--version" | "-t" | "--token" | "--header"
                | "--password-stdin",
                Some(_),
            ) => return Err(format!("{name} takes no value")),
            // The name alone: what follows a sign of equality may be a secret.
            _ => return Err(format!("unknown option {name:?}")),
        }
    }
    Ok(asked)
}

/// Splits `--name=value`.
fn split(argument: &OsString) -> (String, Option<OsString>) {
    let bytes = argument.as_encoded_bytes();
    let Some(end) = bytes.iter().position(|b| *b == b'=') else {
        return (argument.to_string_lossy().into_owned(), None);
    };
    let name = String::from_utf8_lossy(&bytes[..end]).into_owned();
    (name, Some(after(argument, end + 1)))
}

#[cfg(unix)]
fn after(argument: &OsString, start: usize) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    OsString::from_vec(argument.as_bytes()[start..].to_vec())
}

#[cfg(not(unix))]
fn after(argument: &OsString, start: usize) -> OsString {
    // Names are ASCII, so the text is cut between characters.
    argument.to_string_lossy()[start..].into()
}

impl Asked {
    fn options(self) -> Result<Options, String> {
        let mut operands = self.operands.into_iter();
        let user_name = utf8("USERNAME", operands.next().ok_or("USERNAME is missing")?)?;
        if user_name.is_empty() {
            return Err("USERNAME is empty".into());
        }
        let resource = operands.next();
        if operands.next().is_some() {
            return Err("too many arguments: at most USERNAME and RESOURCE".into());
        }
        let print = match (self.token, self.header, resource) {
            (true, true, _) => return Err("--token and --header exclude each other".into()),
            (true, _, Some(_)) => return Err("--token takes no RESOURCE".into()),
            (_, true, Some(_)) => return Err("--header takes no RESOURCE".into()),
            (true, _, None) => Print::Token,
            (_, true, None) => Print::Header,
            (_, _, Some(resource)) => Print::Resource(utf8("RESOURCE", resource)?),
            (_, _, None) => Print::default(),
        };
        Ok(Options {
            user_name,
            print,
            password_stdin: self.password_stdin,
            base_url: self
                .base_url
                .map(|url| utf8("--base-url", url))
                .transpose()?,
            session: self.session.map(path("--session")).transpose()?,
            cacert: self.cacert.map(path("--cacert")).transpose()?,
            timeout: self.timeout.map(seconds).transpose()?,
            retries: self.retry.map(count).transpose()?.unwrap_or(0),
        })
    }
}

fn utf8(name: &str, value: OsString) -> Result<String, String> {
    value
        .into_string()
        .map_err(|_| format!("{name} isn't UTF-8"))
}

fn path(name: &'static str) -> impl FnOnce(OsString) -> Result<PathBuf, String> {
    move |value| match value.is_empty() {
        true => Err(format!("{name} needs the name of a file")),
        false => Ok(value.into()),
    }
}

fn seconds(value: OsString) -> Result<Duration, String> {
    let number = value.to_str().and_then(|text| text.parse::<f64>().ok());
    match number {
        Some(seconds) if seconds.is_finite() && seconds > 0.0 => {
            // What is too long for a Duration is no limit, what is too short one at once.
            let limit = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
            Ok(limit.max(Duration::from_nanos(1)))
        }
        _ => Err("--timeout must be a number of seconds above zero".into()),
    }
}

fn count(value: OsString) -> Result<u32, String> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| "--retry must be a whole number, 0 or more".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Command, String> {
        parse(arguments.iter().map(OsString::from))
    }

    fn options(arguments: &[&str]) -> Options {
        match read(arguments) {
            Ok(Command::Run(options)) => options,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn options_stand_in_any_order_and_form() {
        let expected = options(&["--base-url", "u", "--timeout=2.5", "-t", "me"]);
        assert_eq!(expected.base_url.as_deref(), Some("u"));
        assert_eq!(expected.timeout, Some(Duration::from_millis(2500)));
        assert_eq!(expected.print, Print::Token);
        assert_eq!(
            options(&["me", "--token", "--timeout", "2.5", "--base-url=u"]),
            expected
        );
    }

    #[test]
    fn two_hyphens_end_the_options() {
        let options = options(&["--", "-me", "--token"]);
        assert_eq!(options.user_name, "-me");
        assert_eq!(options.print, Print::Resource("--token".into()));
    }

    #[test]
    fn the_resource_is_the_data_sets_by_default() {
        assert_eq!(options(&["me"]).print, Print::Resource("datasets/".into()));
        assert_eq!(options(&["me", "x"]).print, Print::Resource("x".into()));
    }

    #[test]
    fn help_beats_other_errors_and_version_the_rest() {
        for arguments in [
            &["-h"][..],
            &["--nonsense", "--help"],
            &["--timeout", "-h"],
            &["-V", "-h"],
        ] {
            assert_eq!(read(arguments), Ok(Command::Help), "{arguments:?}");
        }
        assert_eq!(read(&["-V"]), Ok(Command::Version));
        assert!(read(&["--nonsense", "--", "--help"]).is_err());
    }

    #[test]
    fn wrong_usage_is_told_without_quoting_a_value() {
        for (arguments, message) in [
            (&[][..], "USERNAME is missing"),
            (&[""], "USERNAME is empty"),
            (
                &["me", "a", "b"],
                "too many arguments: at most USERNAME and RESOURCE",
            ),
            (
                &["me", "--password=hunter2"],
                "unknown option \"--password\"",
            ),
            (&["me", "-x"], "unknown option \"-x\""),
            (&["me", "--token=x"], "--token takes no value"),
            (&["me", "--base-url"], "--base-url needs a value"),
            (
                &["me", "--cacert=a", "--cacert", "b"],
                "--cacert is given twice",
            ),
            (
                &["me", "-t", "--header"],
                "--token and --header exclude each other",
            ),
            (
                &["me", "-s", "a", "--session=b"],
                "--session is given twice",
            ),
            (&["me", "--session="], "--session needs the name of a file"),
            (&["me", "a", "-t"], "--token takes no RESOURCE"),
            (&["me", "a", "--header"], "--header takes no RESOURCE"),
        ] {
            assert_eq!(read(arguments), Err(message.into()), "{arguments:?}");
        }
        for timeout in ["0", "-1", "nan", "inf", "x", ""] {
            assert!(read(&["me", "--timeout", timeout]).is_err(), "{timeout}");
        }
        for retry in ["", "-1", "x", "1.5", "99999999999"] {
            assert!(read(&["me", "--retry", retry]).is_err(), "{retry}");
        }
        assert_eq!(options(&["me", "--retry", "3"]).retries, 3);
        assert_eq!(
            options(&["me", "--timeout", "1e300"]).timeout,
            Some(Duration::MAX)
        );
    }

    #[test]
    fn every_option_stands_in_the_help() {
        for option in [
            "--token",
            "--header",
            "--password-stdin",
            "--session",
            "--base-url",
            "--cacert",
            "--timeout",
            "--retry",
            "--help",
            "--version",
        ] {
            assert!(HELP.contains(option), "{option}");
        }
    }
}
