//! What becomes of a request whose worker has ended or was stopped: it goes to another one, is tried again, or is answered with an error. Pure.

use super::dialogue::{Fault, shown};
use crate::error::ErrorKind;
use crate::status::ExitStatus;
use std::time::Duration;

/// Why a worker is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its request was cancelled.
    Cancelled,
    /// Its request, or its beginning, has taken too long.
    Timeout,
    /// The pool was terminated.
    Terminated,
    /// It has said what it must not.
    Fault(Fault),
    /// It reads nothing more.
    ClosedInput,
    /// It says nothing more.
    ClosedOutput,
    /// Its beginning was not as expected.
    WrongStart(String),
    /// It was told to go, and has not gone.
    Lingers,
}

/// What is known of a worker that has ended with a request.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) fate: Option<&'a Fate>,
    /// It has read something of the request.
    pub(super) has_begun: bool,
    /// How often the request may be begun once more.
    pub(super) retries: u32,
    pub(super) status: ExitStatus,
    /// What there was of a reply.
    pub(super) half_reply: &'a [u8],
    pub(super) timeout: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has nothing to do with it: it goes to another worker.
    GiveBack,
    /// It is begun again, which counts.
    Again,
    Answer(ErrorKind, String),
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Verdict {
    let Some(fate) = evidence.fate else {
        return judge_death(evidence, ErrorKind::Status, evidence.status.to_string());
    };
    match fate {
        Fate::Cancelled => Verdict::Answer(ErrorKind::Cancelled, "cancelled".into()),
        Fate::Terminated => Verdict::Answer(ErrorKind::Cancelled, "the pool was terminated".into()),
        Fate::Timeout => {
            let text = format!("no reply after {:?}", evidence.timeout.unwrap_or_default());
            Verdict::Answer(ErrorKind::Timeout, text)
        }
        // It was said before the request was read.
        Fate::Fault(Fault::Unasked(_)) | Fate::WrongStart(_) | Fate::Lingers => Verdict::GiveBack,
        Fate::Fault(fault @ Fault::TooLong(_)) => Verdict::Answer(ErrorKind::Overflow, fault.to_string()),
        Fate::Fault(fault) => Verdict::Answer(ErrorKind::Decode, fault.to_string()),
        Fate::ClosedInput => judge_death(evidence, ErrorKind::Ended, "it has closed its standard input".into()),
        Fate::ClosedOutput => judge_death(evidence, ErrorKind::Ended, "it has closed its standard output".into()),
    }
}

/// It has ended by itself, or will never reply.
fn judge_death(evidence: &Evidence<'_>, kind: ErrorKind, how: String) -> Verdict {
    let when = match evidence.half_reply {
        [] => "before it had replied".to_owned(),
        half => format!("in the middle of its reply {}", shown(half)),
    };
    match evidence {
        Evidence { has_begun: false, .. } => Verdict::GiveBack,
        Evidence { retries: 1.., .. } => Verdict::Again,
        _ => Verdict::Answer(kind, format!("{how} {when}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn of(fate: Option<Fate>, has_begun: bool, retries: u32, half_reply: &[u8]) -> Verdict {
        let status = std::process::ExitStatus::from_raw(9).into();
        let timeout = Some(Duration::from_secs(1));
        judge(&Evidence { fate: fate.as_ref(), has_begun, retries, status, half_reply, timeout })
    }

    fn text(verdict: Verdict) -> String {
        match verdict {
            Verdict::Answer(kind, text) => format!("{kind:?}: {text}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_blame_follows_from_the_facts() {
        let fault = |fault| Some(Fate::Fault(fault));
        let table = [
            (None, false, 0, &b""[..], "GiveBack"),
            (None, false, 5, b"", "GiveBack"),
            (None, true, 1, b"", "Again"),
            (None, true, 0, b"", "Status: signal: SIGKILL before it had replied"),
            (None, true, 0, b"ab", "Status: signal: SIGKILL in the middle of its reply \"ab\""),
            (
                Some(Fate::ClosedOutput),
                true,
                0,
                b"ab",
                "Ended: it has closed its standard output in the middle of its reply \"ab\"",
            ),
            (Some(Fate::ClosedInput), true, 0, b"", "Ended: it has closed its standard input before it had replied"),
            (Some(Fate::ClosedInput), true, 2, b"", "Again"),
            (Some(Fate::ClosedInput), false, 0, b"", "GiveBack"),
            (Some(Fate::Lingers), true, 0, b"", "GiveBack"),
            (Some(Fate::Cancelled), true, 2, b"", "Cancelled: cancelled"),
            (Some(Fate::Terminated), false, 2, b"", "Cancelled: the pool was terminated"),
            (Some(Fate::Timeout), true, 2, b"ab", "Timeout: no reply after 1s"),
            (fault(Fault::Unasked("\"x\"".into())), false, 0, b"", "GiveBack"),
            (fault(Fault::Surplus("\"x\"".into())), true, 2, b"", "Decode: it has said \"x\" behind its reply"),
            (fault(Fault::TooLong(7)), true, 2, b"", "Overflow: its reply has more than 7 bytes"),
            (fault(Fault::Nonsense("no".into())), true, 2, b"", "Decode: what it says is no reply: no"),
        ];
        for (fate, has_begun, retries, half, expected) in table {
            let shown = format!("{fate:?} {has_begun} {retries} {half:?}");
            assert_eq!(text(of(fate, has_begun, retries, half)), expected, "{shown}");
        }
    }
}
