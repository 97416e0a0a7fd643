//! What comes with time: pauses that are over, jobs that have had theirs, signs of services, engines that do not answer, and engines
//! that are no more.

use super::*;

impl Core {
    pub(super) fn look_at_moments(&mut self, now: Instant, orders: &mut Orders) {
        while let Some(&(moment, id)) = self.moments.first()
            && moment <= now
        {
            self.moments.pop_first();
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            match &mut entry.phase {
                Phase::Pausing(until) if *until <= now => self.put_back(id),
                Phase::Running(run) => {
                    let has_had_its_time = run.moment.is_some_and(|moment| moment <= now);
                    match (has_had_its_time, run.ending) {
                        (true, None) => {
                            run.moment = None;
                            self.end_run(id, Outcome::TimedOut, now);
                        }
                        (true, Some(ending)) => self.give_up(id, ending, now),
                        (false, _) => self.look_for_sign(id, now, orders),
                    }
                }
                _ => {}
            }
        }
    }

    /// An engine has not told the end of what it was to stop.
    pub(super) fn give_up(&mut self, id: TaskId, ending: Outcome, now: Instant) {
        let run = self.leave_run(id);
        let error = Error::new(ErrorKind::Engine).detail("the engine has not told the end of what it was to stop");
        let result = result_of(ending, Output::default(), Some(error));
        // It may still run: only what may run twice is run again.
        if self.entries.get(&id).is_some_and(|entry| entry.task.idempotent) {
            self.finish(id, run, ending, result, now);
        } else {
            self.resolve(id, run, ending, result, now);
        }
    }

    pub(super) fn look_for_sign(&mut self, id: TaskId, now: Instant, orders: &mut Orders) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        let (Service::Awaited(until), Some(ready)) = (run.service, &entry.task.ready) else { return };
        if now >= until {
            return self.end_run(id, Outcome::TimedOut, now);
        }
        let next = match &ready.sign {
            Sign::Started => return self.is_ready(id, now),
            Sign::Line(_) => until,
            sign => {
                orders.probes.push((run.job, sign.clone()));
                until.min(now + PROBE_EVERY)
            }
        };
        run.look = Some(next);
        self.moments.insert((next, id));
    }

    /// When nothing but services is left, and what waits for their end, they are stopped, the last one first, one after the other.
    pub(super) fn end_next_service(&mut self, now: Instant) {
        if !(self.services_end || self.closed) || self.services.is_empty() {
            return;
        }
        let others = self.entries.len() - self.services.len();
        // What runs, pauses, or may start is not in the line, or can leave it.
        let all_wait = others == 0 || (others == self.line.len() && !self.line.has_startable());
        if !all_wait || (others > 0 && self.line.waiting_for_ends(self.services.iter().copied()).len() < others) {
            return;
        }
        if let Some(&last) = self.services.last() {
            if let Some(entry) = self.entries.get_mut(&last) {
                entry.cancelled = true;
            }
            if self.is_running(last) {
                self.end_run(last, Outcome::Cancelled { confirmed: false }, now);
            } else {
                self.cancel(last, now);
            }
        }
    }

    /// An engine has failed as a whole: everything that ran there is over, and nothing is started there any more.
    pub(in crate::pool) fn lane_failed(&mut self, lane: usize, error: &str, retryable: bool, now: Instant) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            (lane.is_alive, lane.is_waiting) = (false, false);
            lane.cancels.clear();
            lane.signals.clear();
        }
        self.changes += 1;
        self.allowance.renew(None);
        let there = |entry: &Entry| matches!(&entry.phase, Phase::Running(run) if run.lane == lane);
        let ids: BTreeSet<TaskId> = self.entries.iter().filter(|(_, entry)| there(entry)).map(|(id, _)| *id).collect();
        for id in ids {
            let run = self.leave_run(id);
            let outcome = Outcome::EngineFailed { retryable };
            let command = self.entries.get(&id).map(|entry| entry.task.command.to_string()).unwrap_or_default();
            let error = Error::new(ErrorKind::Engine).detail(error.to_owned());
            let output = Output { command, cause: Cause::Running, ..Output::default() };
            self.finish(id, run, outcome, Err(error.with_output(output)), now);
        }
        self.fail_stranded(error, now);
    }

    /// Every lane that waits is to look at its moments: who would have looked is no more.
    pub(in crate::pool) fn wake_all(&mut self) -> Vec<usize> {
        let waiting = self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.is_waiting && lane.is_alive);
        waiting.map(|(place, lane)| (lane.is_waiting = false, place).1).collect()
    }

    /// What waits for an engine that is no more, and none that lives could run, is over.
    pub(super) fn fail_stranded(&mut self, error: &str, now: Instant) {
        if self.renews_lanes || self.starting > 0 {
            return;
        }
        if self.has_lanes() {
            let idle = self.entries.iter().filter(|(_, entry)| !matches!(entry.phase, Phase::Running(_)));
            let stranded = idle.filter(|(_, entry)| self.is_stranded(&entry.task)).map(|(id, _)| *id);
            for id in stranded.collect::<BTreeSet<_>>() {
                self.fail_unstarted(id, error, now);
            }
        } else {
            self.closed = true;
            self.all_lanes_failed(error, now);
        }
    }

    /// There is no engine left: what waits will never run.
    pub(in crate::pool) fn all_lanes_failed(&mut self, error: &str, now: Instant) {
        self.line.drain();
        for id in self.entries.keys().copied().collect::<BTreeSet<_>>() {
            self.leave_run(id);
            self.fail_unstarted(id, error, now);
        }
    }

    pub(super) fn fail_unstarted(&mut self, id: TaskId, error: &str, now: Instant) {
        self.line.remove(id);
        let error = Error::new(ErrorKind::Engine).detail(format!("not started: {error}"));
        self.resolve_unstarted(id, Outcome::EngineFailed { retryable: false }, None, error, now);
    }

    /// No engine that lives, or soon will, can do what it asks for.
    pub(super) fn is_stranded(&self, task: &Task) -> bool {
        let is_able = |lane: &Lane| lane.is_alive && lacks(task, &lane.capabilities).is_none();
        !self.renews_lanes && !self.lanes.is_empty() && self.starting == 0 && !self.lanes.iter().any(is_able)
    }
}
