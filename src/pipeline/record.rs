//! The record of a pipeline from those of its stages: which status it has, what all of them said and used, and why it is over. Pure.

use crate::output::{Captured, Cause, Completeness, Output, Usage};
use crate::signal::Signal;
use crate::status::ExitStatus;

/// The status of the whole from the stages' own and whether each accepts its own: that of the last stage that failed, where being
/// ended by SIGPIPE is no failure of a stage that others follow; else that of the last.
pub(super) fn whole(ends: &[(ExitStatus, bool)], pipefail: bool) -> (ExitStatus, bool) {
    let Some((last, before)) = ends.split_last() else { return (ExitStatus::UNKNOWN, false) };
    let fails = |(status, accepted): &&(ExitStatus, bool)| !accepted && status.signal() != Some(Signal::PIPE);
    let failed = before.iter().rev().find(fails).filter(|_| pipefail && last.1);
    *failed.unwrap_or(last)
}

/// What all stages said, in their order.
pub(super) fn joined(stages: &[Output]) -> Captured {
    let captured = || stages.iter().map(|stage| &stage.stderr);
    let (mut all, mut outside) = (Captured::default(), None);
    for stream in captured() {
        let gap = stream.gap.map(|gap| gap + all.bytes.len());
        // A gap within what a stage said tells more than one where nothing of it was kept.
        let place = if stream.bytes.is_empty() { &mut outside } else { &mut all.gap };
        *place = place.or(gap);
        all.bytes.extend_from_slice(&stream.bytes);
        all.dropped += stream.dropped;
        all.total += stream.total;
        all.lost |= stream.lost;
    }
    all.gap = all.gap.or(outside);
    // The least complete of all speaks for the whole.
    let rank = |completeness: &Completeness| match completeness {
        Completeness::NotCaptured => 0,
        Completeness::Complete => 1,
        Completeness::Open => 2,
        Completeness::CutOff { .. } => 3,
    };
    let least = captured().map(|stream| &stream.completeness).max_by_key(|completeness| rank(completeness));
    all.completeness = least.cloned().unwrap_or_default();
    all
}

/// Why the whole is over: what was done to any stage.
pub(super) fn cause(stages: &[Output]) -> Cause {
    let any = |cause| stages.iter().any(|stage| stage.cause == cause);
    let order = [Cause::Overflow, Cause::Timeout, Cause::Running, Cause::Stopped];
    order.into_iter().find(|cause| any(*cause)).unwrap_or(Cause::Ended)
}

/// Processor time adds up; memory does not, so the largest counts.
pub(super) fn usage(stages: &[Output]) -> Option<Usage> {
    let usages: Option<Vec<Usage>> = stages.iter().map(|stage| stage.usage).collect();
    Some(usages?.into_iter().fold(Usage::default(), |all, one| Usage {
        user: all.user + one.user,
        system: all.system + one.system,
        resident_max: all.resident_max.max(one.resident_max),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failure_is_that_of_the_whole() {
        let ok = (ExitStatus::from_code(0), true);
        let code = |code| (ExitStatus::from_code(code), false);
        let pipe = (ExitStatus::from_raw(13), false);
        let killed = (ExitStatus::from_raw(9), false);
        let cases = [
            (vec![ok, ok], true, ok),
            (vec![code(3), ok], true, code(3)),
            (vec![code(3), code(4), ok], true, code(4)),
            (vec![code(3), ok, code(5)], true, code(5)),
            (vec![pipe, ok], true, ok),
            (vec![pipe, code(1)], true, code(1)),
            (vec![code(2), pipe, ok], true, code(2)),
            (vec![ok, pipe], true, pipe),
            (vec![killed, ok], true, killed),
            (vec![code(3), ok], false, ok),
            (vec![ok, code(3)], false, code(3)),
            (vec![(ExitStatus::from_code(1), true), ok], true, ok),
        ];
        for (ends, pipefail, expected) in cases {
            assert_eq!(whole(&ends, pipefail), expected, "{ends:?}");
        }
    }
}
