//! A stop in progress: a passive machine that says what to wait for, so that a conversation can go on reading while its
//! process is being stopped. Decides when a plan goes to its next step and when it is over.

use super::ProcessHandle;
use super::tree::{self, Member, Roots};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::output::{ProcessEntry, list};
use crate::signal::Signal;
use crate::status::ExitStatus;
use crate::stop::{Action, Scope, Stop};
use crate::sys::poll;
use crate::sys::procfs::{self, Channel};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// What came of a stop.
#[derive(Clone, Debug)]
#[must_use = "a stop can leave survivors"]
pub struct StopReport {
    status: Option<ExitStatus>,
    steps_taken: usize,
    survivors: Vec<ProcessEntry>,
}

impl StopReport {
    /// How the process ended; [`ExitStatus::UNKNOWN`] if it did not.
    pub fn status(&self) -> ExitStatus {
        self.status.unwrap_or(ExitStatus::UNKNOWN)
    }

    /// Whether the process and everything within the plan's scope has ended.
    pub fn is_stopped(&self) -> bool {
        self.status.is_some() && self.survivors.is_empty()
    }

    /// How many steps of the plan were needed; 0 if all had ended before.
    pub fn steps_taken(&self) -> usize {
        self.steps_taken
    }

    /// Who was still alive when the plan had done everything it could.
    pub fn survivors(&self) -> &[ProcessEntry] {
        &self.survivors
    }
}

impl fmt::Display for StopReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = if self.steps_taken == 1 { "step" } else { "steps" };
        match self.status {
            Some(status) => write!(out, "{status} after {} {steps}", self.steps_taken)?,
            None => write!(out, "still running after {} {steps}", self.steps_taken)?,
        }
        if !self.survivors.is_empty() {
            write!(out, "; still alive: {}", list(&self.survivors))?;
        }
        Ok(())
    }
}

/// What a stop in progress waits for.
pub(crate) enum Progress {
    /// Until something ends, or this moment.
    Wait(Deadline),
    /// The plan is over.
    Over,
}

/// How often a tree that is being killed is looked through for processes born meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// How often newcomers are looked for before a tree is killed: enough for each level of a deep tree.
const FREEZES_MAX: usize = 100;

/// A stop in progress.
pub(crate) struct Stopper {
    plan: Stop,
    next: usize,
    until: Deadline,
    members: Vec<Member>,
    /// The process had ended when it was looked at last.
    exited: bool,
    over: bool,
}

impl Stopper {
    pub(crate) fn new(plan: &Stop) -> Stopper {
        Stopper { plan: plan.clone(), next: 0, until: Deadline::now(), members: Vec::new(), exited: false, over: false }
    }

    /// Goes as far as it can without waiting. The process must not be reaped before the plan is over: its number keeps its
    /// group's number from being given away.
    pub(crate) fn advance(
        &mut self,
        handle: &ProcessHandle,
        pipes: &[Channel],
        close_stdin: &mut dyn FnMut(),
    ) -> Result<Progress, Error> {
        while !self.over {
            let beginning = self.next == 0;
            if beginning {
                self.look(handle, pipes);
            }
            self.members.retain(Member::is_alive);
            let insisting = matches!(self.last_action(), Some(Action::Signal(Signal::KILL)));
            let all_gone = self.members.is_empty() && handle.has_exited();
            // Who was born while the others were signalled gets the same.
            if (insisting || (all_gone && self.next > 0))
                && self.look(handle, pipes)
                && let Some(Action::Signal(signal)) = self.last_action()
            {
                self.signal_members(signal);
            }
            self.exited = handle.has_exited();
            if self.members.is_empty() && self.exited {
                self.over = true;
            } else if !self.until.has_passed() {
                let again = if insisting || self.any_without_descriptor(handle) {
                    self.until.earlier(Deadline::after(LOOK))
                } else {
                    self.until
                };
                return Ok(Progress::Wait(again));
            } else if let Some(step) = self.plan.steps.get(self.next).copied() {
                self.next += 1;
                self.until = Deadline::after(step.grace);
                if !beginning {
                    self.look(handle, pipes);
                }
                match step.action {
                    Action::CloseStdin => {
                        handle.span().stop_step("close stdin", handle.id());
                        close_stdin();
                    }
                    Action::Signal(Signal::KILL) => {
                        self.freeze(handle, pipes);
                        self.signal(handle, Signal::KILL)?;
                    }
                    Action::Signal(signal) => self.signal(handle, signal)?,
                }
            } else {
                self.over = true;
            }
        }
        Ok(Progress::Over)
    }

    /// The descriptors of members, which become readable when they end.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.members.iter().filter_map(Member::fd)
    }

    /// What came of it, once the plan is over. The process has been reaped if it could be.
    pub(crate) fn report(&self, handle: &ProcessHandle, status: Option<ExitStatus>) -> StopReport {
        let own = status.is_none().then(|| handle.entry(handle.inner.birth.pid));
        let others = self.members.iter().filter(|member| member.is_alive()).map(|m| handle.entry(m.stat.pid));
        let survivors = own.into_iter().chain(others).collect();
        StopReport { status, steps_taken: self.next, survivors }
    }

    /// Whether somebody is still alive, once the plan is over.
    pub(crate) fn leaves_survivors(&self) -> bool {
        !self.exited || self.members.iter().any(Member::is_alive)
    }

    fn last_action(&self) -> Option<Action> {
        self.next.checked_sub(1).and_then(|last| self.plan.steps.get(last)).map(|step| step.action)
    }

    fn any_without_descriptor(&self, handle: &ProcessHandle) -> bool {
        handle.notice().is_none() || self.members.iter().any(|member| member.fd().is_none())
    }

    fn look(&mut self, handle: &ProcessHandle, pipes: &[Channel]) -> bool {
        let birth = &handle.inner.birth;
        // A number that may have been given away says nothing about who belongs to whom.
        let (pid, group) = (handle.owns_number().then_some(birth.pid), birth.leads_group);
        let roots = match self.plan.scope {
            Scope::Process => return false,
            Scope::Group => Roots { pid, group, ..Roots::default() },
            Scope::Tree => Roots {
                pid,
                group,
                session: birth.leads_session,
                descendants: true,
                mark: birth.mark.as_deref(),
                pipes,
            },
        };
        tree::refresh(&roots, &mut self.members)
    }

    /// Stops everybody before anybody is killed: the child of a parent that was killed first would be nobody's child, and not
    /// be found any more. A stopped process makes no further children.
    fn freeze(&mut self, handle: &ProcessHandle, pipes: &[Channel]) {
        if self.plan.scope != Scope::Tree {
            return;
        }
        for _ in 0..FREEZES_MAX {
            // Whoever may not be stopped may not be killed either, and that is told then.
            let _ = handle.send_signal(Signal::STOP);
            self.signal_members(Signal::STOP);
            if !self.look(handle, pipes) {
                return;
            }
        }
    }

    fn signal(&self, handle: &ProcessHandle, signal: Signal) -> Result<(), Error> {
        let by_group = self.plan.scope != Scope::Process && handle.inner.birth.leads_group;
        if by_group {
            // At once for the whole group, so that no member is missed that is born meanwhile.
            handle.span().stop_step(signal, format_args!("group {}", handle.id()));
            handle.send_signal_group(signal)?;
        } else {
            handle.span().stop_step(signal, handle.id());
            handle.send_signal(signal)?;
        }
        for member in &self.members {
            handle.span().stop_step(signal, member.stat.pid);
        }
        self.signal_members(signal);
        // A stopped process acts on the signal when it is continued.
        if wants_continuing(signal) {
            if by_group {
                handle.send_signal_group(Signal::CONT)?;
            } else {
                handle.send_signal(Signal::CONT)?;
            }
        }
        Ok(())
    }

    fn signal_members(&self, signal: Signal) {
        for member in &self.members {
            member.signal(signal.number());
            if wants_continuing(signal) {
                member.signal(Signal::CONT.number());
            }
        }
    }
}

fn wants_continuing(signal: Signal) -> bool {
    !matches!(signal, Signal::KILL | Signal::STOP | Signal::CONT)
}

/// Sends a signal once to the process and to everybody within the plan's scope, except to members of this group.
pub(crate) fn signal_all(
    handle: &ProcessHandle,
    plan: &Stop,
    pipes: &[Channel],
    signal: Signal,
    except_group: Option<i32>,
) -> Result<(), Error> {
    let mut stopper = Stopper::new(plan);
    stopper.look(handle, pipes);
    let is_meant = |group: i32| except_group != Some(group);
    if procfs::stat(handle.inner.birth.pid).is_none_or(|stat| is_meant(stat.group)) {
        handle.send_signal(signal)?;
    }
    for member in stopper.members.iter().filter(|member| is_meant(member.stat.group)) {
        member.signal(signal.number());
    }
    Ok(())
}

/// A process that nobody talks with, and what its stop needs.
pub(crate) struct Target<'a> {
    pub(crate) handle: &'a ProcessHandle,
    pub(crate) plan: &'a Stop,
    /// The pipes that its output comes by.
    pub(crate) pipes: Vec<Channel>,
    /// Closes standard input, if somebody holds the pipe to it.
    pub(crate) close_stdin: Option<&'a mut dyn FnMut()>,
}

/// The whole plan of each, at the same time.
pub(crate) fn stop_all(targets: &mut [Target<'_>]) -> Result<Vec<StopReport>, Error> {
    let mut stoppers: Vec<Stopper> = targets.iter().map(|target| Stopper::new(target.plan)).collect();
    loop {
        let mut until = None;
        for (target, stopper) in targets.iter_mut().zip(&mut stoppers) {
            let mut close_stdin = || {
                if let Some(close) = &mut target.close_stdin {
                    close();
                }
            };
            if let Progress::Wait(moment) = stopper.advance(target.handle, &target.pipes, &mut close_stdin)? {
                until = Some(moment.earlier(until.unwrap_or(Deadline::NEVER)));
            }
        }
        let Some(until) = until else { break };
        let mut entries = Vec::with_capacity(targets.len() * 2);
        for (target, stopper) in targets.iter().zip(&stoppers).filter(|(_, stopper)| !stopper.over) {
            // An end that comes after the look must wake us, so it is the look that counts.
            let own = if stopper.exited { None } else { target.handle.notice() };
            entries.extend(own.into_iter().chain(stopper.descriptors()).map(poll::readable));
        }
        poll::wait(&mut entries, until.moment()).map_err(|error| Error::io("poll", error))?;
    }
    let reports = targets.iter().zip(&stoppers).map(|(target, stopper)| {
        let handle = target.handle;
        let ended = if handle.has_exited() { handle.wait_ended(Deadline::after(LOOK))? } else { None };
        Ok(stopper.report(handle, ended.map(|ended| ended.status)))
    });
    reports.collect()
}
