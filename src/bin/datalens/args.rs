//! The command line, as a pure function of its arguments.

use std::ffi::{OsStr, OsString};
use std::{mem, vec};
use std::{os::unix::ffi::OsStrExt, path::PathBuf, time::Duration};

use crate::error::named;

pub(crate) const USAGE: &str = "\
prints a resource of HERE's Geovisualization (Data Lens) API as JSON
Usage: datalens [OPTIONS] USERNAME [RESOURCE]
An access token is valid for an hour. Try 'datalens -h' or 'datalens --help'.";

pub(crate) const SHORT_HELP: &str = "\
Signs in to HERE's Geovisualization (Data Lens) API; prints a resource as JSON.

Usage: datalens [OPTIONS] USERNAME [RESOURCE]

  USERNAME                the e-mail address of the HERE account
  RESOURCE                a path below /v1/ [default: datasets/]
  -t, --token             print the access token, which is valid for an hour
      --header            print it as a header, for curl -H @-
      --password-stdin    read the password from standard input
  -s, --session FILE      keep the session in FILE
      --base-url URL      another URL than https://datalens.api.here.com
      --cacert FILE       trust these certificates (PEM) instead
      --timeout SECONDS   limit each whole call
      --retry N           send a call again, up to N times, if that may help
  -v, --verbose           say on standard error what is done
  -h, --help              print this; --help prints all
  -V, --version           print the version

Environment: HERE_APP_ID and HERE_APP_CODE (required), DATALENS_PASSWORD
";

pub(crate) const LONG_HELP: &str = "\
Signs in to HERE's Geovisualization (Data Lens) API; prints a resource as JSON.

Usage: datalens [OPTIONS] USERNAME [RESOURCE]

  USERNAME  the e-mail address of the HERE account
  RESOURCE  a path below /v1/, with its own query if it needs one (quote one
            that has a '?') [default: datasets/]

Examples:
  datalens me@example.com | jq -r '.datasets[].id'
  datalens --session ~/.datalens.json me@example.com 'queries/17/data?a=b'

Options:
  -t, --token           print the access token instead of a resource; it is
                        valid for an hour
      --header          print 'Authorization: Bearer <token>', for curl -H @-
      --password-stdin  read the password from standard input: one line
  -s, --session FILE    keep the session in FILE: a token that is still good is
                        used, an old one refreshed; else the password is asked
                        for; only you can read FILE, and 'rm FILE' forgets it
      --base-url URL    another URL than https://datalens.api.here.com
      --cacert FILE     PEM certificates to trust instead of the built-in ones
      --timeout SECONDS the most that each whole call may take, its body
                        included; none by default
      --retry N         send a call again, up to N times, after a failure with
                        status 4: a sign-in or a refresh only if it can't have
                        been received, or on 429 and 503; --timeout holds for
                        each try
  -v, --verbose         say on standard error what is done, a line each
  -h, --help            print the options; print all this
  -V, --version         print the version

An option that is given again beats the earlier one.

Environment:
  HERE_APP_ID, HERE_APP_CODE  the application's credentials (required)
  DATALENS_PASSWORD           the password; else the terminal is asked for it
  DATALENS_BASE_URL           as --base-url
  SSL_CERT_FILE               as --cacert
  https_proxy, all_proxy, no_proxy and their upper-case forms, as curl has them

Whatever --timeout is: a name is looked up within 10 s, a connection (TLS
included) made within 15 s, a response begun within 60 s, no stall in a body
lasts longer than 60 s, and a sign-in is over within 60 s.

Exit status:
  0    done
  1    something on this machine failed: writing the output, storing the
       session, a lock that can't be opened
  2    usage, a missing or unusable setting, a file that is refused, no
       password to be had: nothing was sent
  3    the credentials or the session were refused
  4    it may work later: not reached, not in time, cut short, overloaded
  5    it won't work by itself: another status, a redirect elsewhere, a
       malformed response, an untrusted certificate
  130  interrupted
";

const VERSION: &str = concat!("datalens ", env!("CARGO_PKG_VERSION"), "\n");

pub(crate) const DEFAULT_RESOURCE: &str = "datasets/";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Print(&'static str),
    Run(Options),
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) email: String,
    pub(crate) resource: String,
    /// What stands before the access token, if that is printed instead of the resource.
    pub(crate) token_prefix: Option<&'static str>,
    pub(crate) password_stdin: bool,
    pub(crate) session: Option<PathBuf>,
    pub(crate) base_url: Option<String>,
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_retries: u32,
    pub(crate) verbose: bool,
}

/// Reads the arguments after the program's name. No message quotes a value: it may be a
/// secret in the wrong place.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Command, String> {
    if arguments.is_empty() {
        return Err(USAGE.into());
    }
    // Whoever asks for help gets it, whatever else is wrong.
    let mut options = arguments.iter().take_while(|argument| *argument != "--");
    if let Some(option) = options.find(|option| *option == "-h" || *option == "--help") {
        return Ok(Command::Print(if option == "-h" { SHORT_HELP } else { LONG_HELP }));
    }
    parse_options(arguments).map_err(|reason| format!("{reason}\nTry 'datalens --help' for more."))
}

fn parse_options(arguments: Vec<OsString>) -> Result<Command, String> {
    let mut options = Options::default();
    let (mut token, mut header, mut version) = (None, None, false);
    let mut arguments = Arguments { rest: arguments.into_iter(), ..Arguments::default() };
    while arguments.next_option()? {
        match arguments.option.as_str() {
            "-t" | "--token" => token = Some(""),
            "--header" => header = Some("Authorization: Bearer "),
            "--password-stdin" => options.password_stdin = true,
            "-s" | "--session" => options.session = Some(arguments.value(file_name)?),
            "--base-url" => options.base_url = Some(arguments.value(utf8)?),
            "--cacert" => options.cacert = Some(arguments.value(file_name)?),
            "--timeout" => options.timeout = Some(arguments.value(seconds)?),
            "--retry" => options.max_retries = arguments.value(count)?,
            "-v" | "--verbose" => options.verbose = true,
            "-V" | "--version" => version = true,
            "-h" => return Ok(Command::Print(SHORT_HELP)),
            "--help" if arguments.attached.is_empty() => return Ok(Command::Print(LONG_HELP)),
            // With a value, which it doesn't take.
            "--help" => {}
            unknown => {
                // Up to where a value may have been glued to it.
                let end = unknown.find(|c: char| !c.is_ascii_alphabetic() && c != '-');
                return Err(format!("unknown option {}", &unknown[..end.unwrap_or(unknown.len())]));
            }
        }
    }
    if version {
        return Ok(Command::Print(VERSION));
    }
    let mut operands = arguments.operands.into_iter();
    options.email = named("USERNAME", operands.next().ok_or("is missing").and_then(user_name))?;
    let resource = operands.next();
    options.token_prefix = match (token, header, &resource) {
        (Some(_), Some(_), _) => return Err("--token and --header exclude each other".into()),
        (Some(_), _, Some(_)) => return Err("--token takes no RESOURCE".into()),
        (_, Some(_), Some(_)) => return Err("--header takes no RESOURCE".into()),
        _ => token.or(header),
    };
    options.resource = named("RESOURCE", resource.map_or(Ok(DEFAULT_RESOURCE.into()), utf8))?;
    match operands.next() {
        Some(_) => Err("too many arguments: at most USERNAME and RESOURCE".into()),
        None => Ok(Command::Run(options)),
    }
}

/// The arguments, from option to option: `--name`, `--name=VALUE`, `--name VALUE`, or
/// letters behind one hyphen, of which the last may have a value: `-tv`, `-ts FILE`,
/// `-sFILE`, `-s=FILE`.
#[derive(Default)]
struct Arguments {
    rest: vec::IntoIter<OsString>,
    /// What is no option, of what was read.
    operands: Vec<OsString>,
    /// The latest option, with its hyphens.
    option: String,
    /// What follows it in the same argument: a value, with or without '=', or more letters.
    attached: Vec<u8>,
}

impl Arguments {
    /// Reads up to the next option, if there is one.
    fn next_option(&mut self) -> Result<bool, String> {
        while self.attached.is_empty() {
            let Some(argument) = self.rest.next() else { return Ok(false) };
            match argument.as_bytes() {
                b"--" => self.operands.extend(self.rest.by_ref()),
                long @ [b'-', b'-', ..] => {
                    let end = long.iter().position(|b| *b == b'=').unwrap_or(long.len());
                    self.option = String::from_utf8_lossy(&long[..end]).into();
                    self.attached = long[end..].into();
                    return Ok(true);
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    self.option = "-".into();
                    self.attached = letters.into();
                }
                _ => self.operands.push(argument),
            }
        }
        match self.attached.remove(0) {
            b'=' => return Err(format!("{} takes no value", self.option)),
            letter => self.option = format!("-{}", char::from(letter)),
        }
        Ok(true)
    }

    /// Reads the latest option's value; `read` says what is wrong with one.
    fn value<T>(&mut self, read: fn(OsString) -> Result<T, &'static str>) -> Result<T, String> {
        let value = match &mem::take(&mut self.attached)[..] {
            [] => self.rest.next(),
            [b'=', value @ ..] | value => Some(OsStr::from_bytes(value).into()),
        };
        named(&self.option, value.ok_or("needs a value").and_then(read))
    }
}

fn user_name(value: OsString) -> Result<String, &'static str> {
    match utf8(value)? {
        name if !name.contains('@') => Err("must be the e-mail address of the account"),
        name if name.contains(char::is_control) => Err("holds a control character"),
        name => Ok(name),
    }
}

pub(crate) fn utf8(value: OsString) -> Result<String, &'static str> {
    value.into_string().map_err(|_| "isn't UTF-8")
}

fn file_name(value: OsString) -> Result<PathBuf, &'static str> {
    if value.is_empty() { Err("needs the name of a file") } else { Ok(value.into()) }
}

fn seconds(value: OsString) -> Result<Duration, &'static str> {
    let number = value.to_str().and_then(|text| text.parse::<f64>().ok());
    let seconds = number.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
    let seconds = seconds.ok_or("must be a number of seconds above zero")?;
    // What is too long for a Duration is no limit, what is too short one at once.
    Ok(Duration::try_from_secs_f64(seconds.max(1e-9)).unwrap_or(Duration::MAX))
}

fn count(value: OsString) -> Result<u32, &'static str> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.ok_or("must be a whole number, 0 or more")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Command, String> {
        parse(arguments.iter().map(OsString::from).collect())
    }

    fn options(arguments: &[&str]) -> Options {
        match read(arguments) {
            Ok(Command::Run(options)) => options,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    /// The first line of the message.
    fn refusal(arguments: &[&str]) -> String {
        let reason = read(arguments).unwrap_err();
        reason.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn options_stand_in_any_order_and_form() {
        let expected = options(&["--base-url", "u", "--timeout=2.5", "-t", "-v", "me@x"]);
        assert_eq!(expected.base_url.as_deref(), Some("u"));
        assert_eq!(expected.timeout, Some(Duration::from_millis(2500)));
        assert_eq!(expected.token_prefix, Some(""));
        assert!(expected.verbose);
        let same = ["me@x", "--token", "--verbose", "--timeout", "2.5", "--base-url=u"];
        assert_eq!(options(&same), expected);
        assert_eq!(options(&["-tv", "me@x", "--timeout=2.5", "--base-url=u"]), expected);
    }

    #[test]
    fn a_file_is_glued_to_its_letter_or_follows_it() {
        for arguments in [
            &["-sFILE", "-t", "me@x"][..],
            &["-s=FILE", "-t", "me@x"],
            &["-ts", "FILE", "me@x"],
            &["-tsFILE", "me@x"],
            &["-ts=FILE", "me@x"],
            &["--session=FILE", "-t", "me@x"],
        ] {
            let options = options(arguments);
            assert_eq!(options.session.as_deref(), Some("FILE".as_ref()), "{arguments:?}");
            assert_eq!(options.token_prefix, Some(""), "{arguments:?}");
        }
    }

    #[test]
    fn an_option_that_is_given_again_beats_the_earlier_one() {
        let options = options(&["-s", "a", "--session=b", "--retry=1", "--retry", "2", "me@x"]);
        assert_eq!(options.session.as_deref(), Some("b".as_ref()));
        assert_eq!(options.max_retries, 2);
    }

    #[test]
    fn two_hyphens_end_the_options() {
        let options = options(&["--", "-me@x", "--token"]);
        assert_eq!(options.email, "-me@x");
        assert_eq!(options.resource, "--token");
        assert_eq!(options.token_prefix, None);
    }

    #[test]
    fn the_resource_is_the_data_sets_by_default() {
        for (arguments, resource) in [(&["me@x"][..], "datasets/"), (&["me@x", "-"], "-")] {
            let options = options(arguments);
            assert_eq!((&*options.resource, options.token_prefix), (resource, None));
        }
    }

    #[test]
    fn help_beats_other_errors_and_version_the_rest() {
        for (arguments, help) in [
            (&["-h"][..], SHORT_HELP),
            (&["--nonsense", "--help"], LONG_HELP),
            (&["-s", "--", "--help"], LONG_HELP),
            (&["--timeout", "-h"], SHORT_HELP),
            (&["-V", "-h"], SHORT_HELP),
            (&["-vh"], SHORT_HELP),
        ] {
            assert_eq!(read(arguments), Ok(Command::Print(help)), "{arguments:?}");
        }
        assert_eq!(read(&["-V"]), Ok(Command::Print(VERSION)));
        assert_eq!(read(&["-tV", "x"]), Ok(Command::Print(VERSION)));
        assert!(read(&["--nonsense", "--", "--help"]).is_err());
    }

    #[test]
    fn without_arguments_it_says_what_it_is() {
        assert_eq!(read(&[]), Err(USAGE.into()));
        assert!(USAGE.contains("valid for an hour") && USAGE.contains("--help"));
    }

    #[test]
    fn wrong_usage_is_told_without_quoting_a_value() {
        for (arguments, message) in [
            (&["-t"][..], "USERNAME is missing"),
            (&[""], "USERNAME must be the e-mail address of the account"),
            (&["login"], "USERNAME must be the e-mail address of the account"),
            (&["me@x\u{7}"], "USERNAME holds a control character"),
            (&["me@x", "a", "b"], "too many arguments: at most USERNAME and RESOURCE"),
            (&["me@x", "--password=hunter2"], "unknown option --password"),
            (&["me@x", "--password:hunter2"], "unknown option --password"),
            (&["me@x", "--hunter\n2"], "unknown option --hunter"),
            (&["me@x", "-phunter2"], "unknown option -p"),
            (&["me@x", "-x"], "unknown option -x"),
            (&["me@x", "-2"], "unknown option -"),
            (&["me@x", "-ü"], "unknown option -"),
            (&["me@x", "-=hunter2"], "- takes no value"),
            (&["me@x", "--token=x"], "--token takes no value"),
            (&["me@x", "-t=x"], "-t takes no value"),
            (&["me@x", "-vt=x"], "-t takes no value"),
            (&["me@x", "--base-url"], "--base-url needs a value"),
            (&["me@x", "-s"], "-s needs a value"),
            (&["me@x", "-ts"], "-s needs a value"),
            (&["me@x", "--session="], "--session needs the name of a file"),
            (&["me@x", "-s="], "-s needs the name of a file"),
            (&["me@x", "-t", "--header"], "--token and --header exclude each other"),
            (&["me@x", "a", "-t"], "--token takes no RESOURCE"),
            (&["me@x", "a", "--header"], "--header takes no RESOURCE"),
        ] {
            assert_eq!(refusal(arguments), message, "{arguments:?}");
        }
    }

    #[test]
    fn numbers_are_checked() {
        for timeout in ["0", "-1", "nan", "inf", "x", ""] {
            assert!(read(&["me@x", "--timeout", timeout]).is_err(), "{timeout}");
        }
        for retry in ["", "-1", "x", "1.5", "99999999999"] {
            assert!(read(&["me@x", "--retry", retry]).is_err(), "{retry}");
        }
        assert_eq!(options(&["me@x", "--retry", "3"]).max_retries, 3);
        assert_eq!(options(&["me@x", "--timeout", "1e300"]).timeout, Some(Duration::MAX));
        let least = Some(Duration::from_nanos(1));
        assert_eq!(options(&["me@x", "--timeout", "1e-300"]).timeout, least);
    }

    #[test]
    fn every_option_stands_in_both_helps_which_fit_a_terminal() {
        assert!(SHORT_HELP.lines().count() <= 23);
        for help in [SHORT_HELP, LONG_HELP] {
            for option in [
                "--token",
                "--header",
                "--password-stdin",
                "--session",
                "--base-url",
                "--cacert",
                "--timeout",
                "--retry",
                "--verbose",
                "--help",
                "--version",
                "HERE_APP_ID",
                "HERE_APP_CODE",
                "hour",
            ] {
                assert!(help.contains(option), "{option}");
            }
            assert!(help.lines().all(|line| line.chars().count() <= 79), "{help}");
        }
    }
}
