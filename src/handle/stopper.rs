//! A stop in progress: a passive machine that says what to wait for, so that a conversation can go on reading while its
//! process is being stopped. Decides when a plan goes to its next step and when it is over.

use super::ProcessHandle;
use super::sight::Sight;
use super::tree::{self, Member, Roots};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::output::{ProcessEntry, list};
use crate::signal::Signal;
use crate::status::ExitStatus;
use crate::stop::{Action, Scope, Stop};
use crate::sys::poll::{self, PollFd};
use crate::sys::procfs::{self, Channel};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

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
    phase: Phase,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// To see who belongs to the process at this moment or later, and then this.
    Look(Instant, Then),
    /// The time of the last step runs, and newcomers were looked for then.
    Grace(Instant),
    Over,
}

/// What a look is taken for.
#[derive(Clone, Copy, Debug)]
enum Then {
    Begin,
    /// Takes the next step.
    Step,
    /// Kills, if nobody was born since all were stopped. With this there were so many looks for that.
    Kill(usize),
    /// Whoever was born while the others were signalled gets the same.
    Follow,
}

impl Stopper {
    pub(crate) fn new(plan: &Stop) -> Stopper {
        let phase = Phase::Look(Instant::now(), Then::Begin);
        Stopper { plan: plan.clone(), next: 0, until: Deadline::NEVER, members: Vec::new(), exited: false, phase }
    }

    /// Goes as far as it can without waiting. The process must not be reaped before the plan is over: its number keeps its
    /// group's number from being given away.
    pub(crate) fn advance(
        &mut self,
        handle: &ProcessHandle,
        pipes: &[Channel],
        sight: &mut Sight,
        close_stdin: &mut dyn FnMut(),
    ) -> Result<Progress, Error> {
        loop {
            self.phase = match self.phase {
                Phase::Over => return Ok(Progress::Over),
                Phase::Look(since, then) => match self.look(handle, pipes, sight, since) {
                    Ok(newcomers) => self.after_look(then, newcomers, handle, close_stdin)?,
                    Err(later) => return Ok(Progress::Wait(later)),
                },
                Phase::Grace(looked) => match self.after_grace(looked, handle) {
                    Phase::Grace(_) => return Ok(Progress::Wait(self.look_again(handle))),
                    phase => phase,
                },
            };
        }
    }

    fn after_look(
        &mut self,
        then: Then,
        newcomers: bool,
        handle: &ProcessHandle,
        close_stdin: &mut dyn FnMut(),
    ) -> Result<Phase, Error> {
        match then {
            Then::Begin if self.all_gone(handle) => Ok(Phase::Over),
            Then::Begin | Then::Step => self.step(handle, close_stdin),
            Then::Kill(looks) if newcomers && looks < FREEZES_MAX => Ok(self.freeze(handle, looks + 1)),
            Then::Kill(_) => self.signal(handle, Signal::KILL),
            Then::Follow => {
                if newcomers && let Some(Action::Signal(signal)) = self.last_action() {
                    self.signal_members(signal);
                }
                Ok(if self.all_gone(handle) { Phase::Over } else { Phase::Grace(Instant::now()) })
            }
        }
    }

    fn after_grace(&mut self, looked: Instant, handle: &ProcessHandle) -> Phase {
        if self.all_gone(handle) {
            Phase::Look(Instant::now(), Then::Follow)
        } else if self.is_insisting() && looked.elapsed() >= LOOK {
            Phase::Look(looked, Then::Follow)
        } else if !self.until.has_passed() {
            Phase::Grace(looked)
        } else if self.next < self.plan.steps.len() {
            Phase::Look(self.until.moment().unwrap_or(looked), Then::Step)
        } else {
            Phase::Over
        }
    }

    /// Takes the next step of the plan.
    fn step(&mut self, handle: &ProcessHandle, close_stdin: &mut dyn FnMut()) -> Result<Phase, Error> {
        let Some(step) = self.plan.steps.get(self.next).copied() else { return Ok(Phase::Over) };
        self.next += 1;
        self.until = Deadline::after(step.grace);
        match step.action {
            Action::CloseStdin => {
                handle.span().stop_step("close stdin", handle.id());
                close_stdin();
                Ok(Phase::Grace(Instant::now()))
            }
            Action::Signal(Signal::KILL) if self.plan.scope == Scope::Tree => Ok(self.freeze(handle, 1)),
            Action::Signal(signal) => self.signal(handle, signal),
        }
    }

    /// Stops everybody before anybody is killed: the child of a parent that was killed first would be nobody's child, and not
    /// be found any more. A stopped process makes no further children.
    fn freeze(&self, handle: &ProcessHandle, looks: usize) -> Phase {
        // Whoever may not be stopped may not be killed either, and that is told then.
        let _ = handle.send_signal(Signal::STOP);
        self.signal_members(Signal::STOP);
        Phase::Look(Instant::now(), Then::Kill(looks))
    }

    fn signal(&self, handle: &ProcessHandle, signal: Signal) -> Result<Phase, Error> {
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
        Ok(Phase::Grace(Instant::now()))
    }

    fn signal_members(&self, signal: Signal) {
        for member in &self.members {
            member.signal(signal.number());
            if wants_continuing(signal) {
                member.signal(Signal::CONT.number());
            }
        }
    }

    /// Whether nobody is left who is known.
    fn all_gone(&mut self, handle: &ProcessHandle) -> bool {
        self.members.retain(Member::is_alive);
        self.exited = handle.has_exited();
        self.members.is_empty() && self.exited
    }

    fn is_insisting(&self) -> bool {
        matches!(self.last_action(), Some(Action::Signal(Signal::KILL)))
    }

    fn last_action(&self) -> Option<Action> {
        self.next.checked_sub(1).and_then(|last| self.plan.steps.get(last)).map(|step| step.action)
    }

    /// Until when to wait for the end of somebody.
    fn look_again(&self, handle: &ProcessHandle) -> Deadline {
        let blind = handle.notice().is_none() || self.members.iter().any(|member| member.fd().is_none());
        if blind || self.is_insisting() { self.until.earlier(Deadline::after(LOOK)) } else { self.until }
    }

    /// Looks for those who belong to the process. Whether there are new ones; if that cannot be seen in this round, when to come again.
    fn look(
        &mut self,
        handle: &ProcessHandle,
        pipes: &[Channel],
        sight: &mut Sight,
        since: Instant,
    ) -> Result<bool, Deadline> {
        let birth = &handle.inner.birth;
        // A number that may have been given away says nothing about who belongs to whom.
        let (pid, group) = (handle.owns_number().then_some(birth.pid), birth.leads_group);
        let roots = match self.plan.scope {
            Scope::Process => return Ok(false),
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
        Ok(tree::refresh(sight.since(since)?, &roots, &mut self.members))
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
}

fn wants_continuing(signal: Signal) -> bool {
    !matches!(signal, Signal::KILL | Signal::STOP | Signal::CONT)
}

/// Sends a signal once to the process and to everybody within the plan's scope, except to members of this group.
pub(crate) fn signal_all(
    handle: &ProcessHandle,
    plan: &Stop,
    pipes: &[Channel],
    sight: &mut Sight,
    (signal, except_group): (Signal, Option<i32>),
) -> Result<(), Error> {
    let mut stopper = Stopper::new(plan);
    // Many that are signalled at once share a look; who is born meanwhile is as one that was born after the signal.
    let now = Instant::now();
    let since = now.checked_sub(LOOK).unwrap_or(now);
    if stopper.look(handle, pipes, sight, since).is_err() {
        sight.renew();
        // In a new round there is a new look.
        let _ = stopper.look(handle, pipes, sight, since);
    }
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

/// Several stops that go on at the same time.
pub(crate) struct Stops {
    stoppers: Vec<Stopper>,
    failure: Option<Error>,
}

impl Stops {
    pub(crate) fn new<'a>(plans: impl Iterator<Item = &'a Stop>) -> Stops {
        Stops { stoppers: plans.map(Stopper::new).collect(), failure: None }
    }

    /// Goes as far as it can without waiting, with the same targets each time. Until when to wait for the end of somebody; `None` when all
    /// that can be done is done.
    pub(crate) fn advance(&mut self, targets: &mut [Target<'_>], sight: &mut Sight) -> Option<Deadline> {
        let mut until = None;
        sight.renew();
        for (target, stopper) in targets.iter_mut().zip(&mut self.stoppers) {
            let mut close_stdin = || {
                if let Some(close) = &mut target.close_stdin {
                    close();
                }
            };
            match stopper.advance(target.handle, &target.pipes, sight, &mut close_stdin) {
                Ok(Progress::Wait(moment)) => until = Some(moment.earlier(until.unwrap_or(Deadline::NEVER))),
                Ok(Progress::Over) => {}
                // The others are stopped all the same.
                Err(error) => {
                    stopper.phase = Phase::Over;
                    self.failure.get_or_insert(error);
                }
            }
        }
        until
    }

    /// What is waited for: readable when somebody has ended.
    pub(crate) fn entries<'fd>(&'fd self, targets: &'fd [Target<'_>]) -> Vec<PollFd<'fd>> {
        let mut entries = Vec::with_capacity(targets.len() * 2);
        for (target, stopper) in
            targets.iter().zip(&self.stoppers).filter(|(_, stopper)| !matches!(stopper.phase, Phase::Over))
        {
            // An end that comes after the look must wake us, so it is the look that counts.
            let own = if stopper.exited { None } else { target.handle.notice() };
            entries.extend(own.into_iter().chain(stopper.descriptors()).map(poll::readable));
        }
        entries
    }

    /// What came of each. The first failure if there was one.
    pub(crate) fn reports(self, targets: &[Target<'_>]) -> Result<Vec<StopReport>, Error> {
        let reports = targets.iter().zip(&self.stoppers).map(|(target, stopper)| {
            let handle = target.handle;
            let ended = if handle.has_exited() { handle.wait_ended(Deadline::after(LOOK))? } else { None };
            Ok(stopper.report(handle, ended.map(|ended| ended.status)))
        });
        let reports = reports.collect::<Result<Vec<_>, Error>>();
        self.failure.map_or(reports, Err)
    }
}

/// The whole plan of each, at the same time. The first failure is returned when all that can be done is done.
pub(crate) fn stop_all(targets: &mut [Target<'_>]) -> Result<Vec<StopReport>, Error> {
    let (mut stops, mut sight) = (Stops::new(targets.iter().map(|target| target.plan)), Sight::default());
    while let Some(until) = stops.advance(targets, &mut sight) {
        poll::wait(&mut stops.entries(targets), until.moment()).map_err(|error| Error::io("poll", error))?;
    }
    stops.reports(targets)
}
