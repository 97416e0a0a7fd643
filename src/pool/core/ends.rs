//! What engines tell: output, readiness, ends; and what an end means for the task, for those that wait for it, and for the run.

use super::*;

impl Core {
    pub(in crate::pool) fn report(&mut self, job: JobId, report: Report, now: Instant) {
        let Some((id, run)) = self.run_of(job) else { return };
        match report {
            Report::Started(place) => run.place = place,
            Report::CancelAccepted => {}
            Report::NotSignalled => self.end_run(id, Outcome::Cancelled { confirmed: false }, now),
            Report::Probed(is_ready) => {
                if is_ready {
                    self.is_ready(id, now);
                }
            }
            Report::Output(stream, bytes) => self.hear(id, stream, bytes, now),
            Report::Finished(finish) => self.ended(id, finish, now),
        }
    }

    pub(super) fn hear(&mut self, id: TaskId, stream: Stream, bytes: Vec<u8>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let mut is_ready = false;
        if let Phase::Running(run) = &mut entry.phase
            && let (Service::Awaited(_), Some(Sign::Line(text))) =
                (run.service, entry.task.ready.as_ref().map(|ready| &ready.sign))
        {
            let [stdout, stderr] = &mut run.heard;
            let heard = if stream == Stream::Stdout { stdout } else { stderr };
            is_ready = has_sign(heard, &bytes, text.as_bytes());
        }
        if self.wants_output {
            let (task, index) = (Arc::clone(&entry.task), entry.index);
            self.outbox.push_back(Effect::Output { id, task, index, stream, bytes });
        }
        if is_ready {
            self.is_ready(id, now);
        }
    }

    /// A service can be used: those that wait for it may start.
    pub(super) fn is_ready(&mut self, id: TaskId, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        if !matches!(run.service, Service::Awaited(_)) || run.ending.is_some() {
            return;
        }
        run.service = Service::Ready;
        self.changes += 1;
        if self.is_observed {
            self.outbox.push_back(Effect::Ready { id, at: now });
        }
        self.line.ready(id);
    }

    pub(super) fn ended(&mut self, id: TaskId, finish: Finish, now: Instant) {
        let Finish { outcome, output, error } = finish;
        let mut started = self.leave_run(id);
        if outcome == Outcome::NotStarted
            && let (Some(entry), Some(run)) = (self.entries.get_mut(&id), &mut started)
        {
            // The engine had taken it, and could not start it: there is no such program, for example.
            entry.attempts = entry.attempts.saturating_sub(1);
            run.accepted = None;
        }
        let ending = started.as_ref().and_then(|run| run.ending);
        // What the pool has ended is called what the pool ended it for; who came to the end before is not.
        let by_us = matches!(outcome, Outcome::Cancelled { .. } | Outcome::EngineFailed { .. });
        let confirmed = matches!(outcome, Outcome::Cancelled { confirmed: true });
        let outcome = match ending {
            Some(Outcome::Cancelled { .. }) if by_us => Outcome::Cancelled { confirmed },
            Some(ending) if by_us => ending,
            _ => outcome,
        };
        let result = result_of(outcome, output, error);
        self.finish(id, started, outcome, result, now);
    }

    /// The last word about an attempt.
    pub(super) fn finish(
        &mut self,
        id: TaskId,
        run: Option<Box<Run>>,
        outcome: Outcome,
        result: Result<Output, Error>,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let success = result.as_ref().is_ok_and(Output::success);
        let retry = entry.task.retry.as_ref().unwrap_or(&self.retry);
        let again =
            if success || entry.cancelled || self.halted.is_some() || (self.services_end && entry.task.is_service) {
                None
            } else {
                let again = || retry.again(outcome, entry.attempts, entry.task.idempotent);
                // A condition is the caller's.
                catch_unwind(AssertUnwindSafe(again)).unwrap_or_else(|panic| {
                    self.panic.get_or_insert(panic);
                    None
                })
            };
        if let Some(pause) = again {
            if self.is_observed {
                let (task, attempt, result) = (Arc::clone(&entry.task), entry.attempts, Box::new(result));
                self.outbox.push_back(Effect::Retrying { id, task, attempt, outcome, result, pause, at: now });
            }
            let until = later(now, pause);
            entry.phase = Phase::Pausing(until);
            self.moments.insert((until, id));
            return;
        }
        self.resolve(id, run, outcome, result, now);
    }

    /// The last word about a task: said once, because the entry is gone afterwards.
    pub(super) fn resolve(
        &mut self,
        id: TaskId,
        run: Option<Box<Run>>,
        outcome: Outcome,
        result: Result<Output, Error>,
        now: Instant,
    ) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.services.retain(|service| *service != id);
        if let Phase::Pausing(until) = entry.phase {
            self.moments.remove(&(until, id));
        }
        self.changes += 1;
        let success = result.as_ref().is_ok_and(Output::success);
        // Those that were not tried, because of another one, are no failures of their own.
        let was_tried = run.is_some() || entry.attempts > 0;
        let is_failure = was_tried && !success && !matches!(outcome, Outcome::Cancelled { .. });
        // What the pool has stopped by its own wish says nothing about the run.
        if self.halted.is_none() {
            (self.succeeded, self.failed) =
                (self.succeeded + usize::from(success), self.failed + usize::from(is_failure));
        }
        let done = Done {
            id,
            index: entry.index,
            name: entry.task.name.clone(),
            group: entry.task.group.clone(),
            outcome,
            unstarted: entry.unstarted,
            result,
            attempts: entry.attempts,
            slot: run.as_ref().map_or(0, |run| run.slot),
            place: run.as_ref().map_or_else(|| "".into(), |run| Arc::clone(&run.place)),
            submitted: entry.submitted,
            started: run.as_ref().and_then(|run| run.accepted),
            ended: now,
            skipped: entry.claim.was_skipped(),
        };
        self.outbox.push_back(Effect::Resolved(Box::new(done), entry.delivery));
        let doomed = self.line.resolve(id, success);
        self.doom(doomed, now);
        for forgotten in self.known.end(id) {
            self.line.forget_failure(forgotten);
        }
        self.look_at_halt(now);
    }

    /// Those that can never run, because of the failure of another.
    pub(super) fn doom(&mut self, doomed: Vec<(TaskId, TaskId)>, now: Instant) {
        // They may be more than are known afterwards.
        let culprits: HashMap<TaskId, String> =
            doomed.iter().map(|(_, culprit)| (*culprit, self.known.label(*culprit))).collect();
        for (id, culprit) in doomed {
            let name = culprits.get(&culprit).map_or("another one", String::as_str);
            let text = format!("not started: {name} has not succeeded");
            let error = Error::new(ErrorKind::Dependency).detail(text);
            self.resolve_unstarted(id, Outcome::NotStarted, Some(Unstarted::Dependency(culprit)), error, now);
        }
    }

    /// The last word about a task that does not run, and why it does not if that is no failure of its own.
    pub(super) fn resolve_unstarted(
        &mut self,
        id: TaskId,
        outcome: Outcome,
        why: Option<Unstarted>,
        error: Error,
        now: Instant,
    ) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.unstarted = why;
        let error = error.of_command(|| entry.task.command.to_string());
        self.resolve(id, None, outcome, Err(error), now);
    }

    pub(super) fn look_at_halt(&mut self, now: Instant) {
        if self.halted.is_some() {
            return;
        }
        let Some(reason) = self.halt.reason(self.succeeded, self.failed) else { return };
        self.halted = Some(reason.clone());
        self.drain(&reason, now);
        if self.halt.stops_running() {
            self.end_runs(now);
        }
    }

    pub(super) fn end_runs(&mut self, now: Instant) {
        for id in self.running_ids() {
            self.end_run(id, Outcome::Cancelled { confirmed: false }, now);
        }
    }

    pub(super) fn running_ids(&self) -> BTreeSet<TaskId> {
        let running = self.entries.iter().filter(|(_, entry)| matches!(entry.phase, Phase::Running(_)));
        running.map(|(id, _)| *id).collect()
    }

    /// A signal wants the whole run to end.
    pub(in crate::pool) fn interrupt(&mut self, heard: Heard, now: Instant) {
        let (stage, signal) = (self.interruption.hear(heard, now), Signal::from_number(heard.number));
        match (stage, signal) {
            (Some(Stage::Ask), Some(signal)) => {
                let reason = format!("interrupted by {signal}");
                self.services_end = true;
                self.halted.get_or_insert_with(|| reason.clone());
                self.drain(&reason, now);
                self.running_ids().into_iter().for_each(|id| self.pass_on(id, signal, heard, now));
            }
            (Some(Stage::Stop), _) => self.end_runs(now),
            (Some(Stage::Kill), _) => {
                let heard = Heard { by_terminal: false, ..heard };
                self.running_ids().into_iter().for_each(|id| self.pass_on(id, Signal::KILL, heard, now));
            }
            _ => {}
        }
    }

    pub(super) fn pass_on(&mut self, id: TaskId, signal: Signal, heard: Heard, now: Instant) {
        let Some(Phase::Running(run)) = self.entries.get(&id).map(|entry| &entry.phase) else { return };
        // Whoever was not there yet when the terminal sent it cannot have had it. If he was just about to come nobody knows, and he
        // has not done anything yet.
        if heard.by_terminal && run.accepted.is_none_or(|accepted| accepted > heard.at) {
            return self.end_run(id, Outcome::Cancelled { confirmed: false }, now);
        }
        if let Some(lane) = self.lanes.get_mut(run.lane) {
            lane.signals.push((run.job, signal, heard.by_terminal));
        }
    }

    /// What waits, or pauses, is not started any more.
    pub(super) fn drain(&mut self, reason: &str, now: Instant) {
        self.line.drain();
        let idle = self.entries.iter().filter(|(_, entry)| !matches!(entry.phase, Phase::Running(_)));
        for id in idle.map(|(id, _)| *id).collect::<BTreeSet<_>>() {
            self.tell_off(id, reason, now);
        }
    }

    /// The last word about a task that is not started because the whole run is to end.
    pub(super) fn tell_off(&mut self, id: TaskId, reason: &str, now: Instant) {
        let (outcome, why, text) = match self.interruption.signal() {
            Some(signal) => (CANCELLED, Unstarted::Interrupted, format!("interrupted by {signal}")),
            None => (Outcome::NotStarted, Unstarted::Halted, format!("the run was halted: {reason}")),
        };
        let error = Error::new(ErrorKind::Cancelled).detail(format!("not started: {text}"));
        self.resolve_unstarted(id, outcome, Some(why), error, now);
    }

    /// The last word about a task that was cancelled before it ran.
    pub(super) fn tell_cancelled(&mut self, id: TaskId, text: &'static str, now: Instant) {
        let error = Error::new(ErrorKind::Cancelled).detail(text);
        self.resolve_unstarted(id, CANCELLED, Some(Unstarted::Cancelled), error, now);
    }

    /// The engine is told to stop a job.
    pub(super) fn end_run(&mut self, id: TaskId, ending: Outcome, now: Instant) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        if run.ending.is_some() {
            return;
        }
        run.ending = Some(ending);
        if let Some(moment) = run.moment.take() {
            self.moments.remove(&(moment, id));
        }
        // Nobody waits for ever for an engine that does not answer.
        run.moment = now.checked_add(entry.task.command.settings.stop.duration().saturating_add(CONFIRM_WITHIN));
        self.moments.extend(run.moment.map(|moment| (moment, id)));
        let (lane, job) = (run.lane, run.job);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.cancels.push(job);
        }
    }

    /// What it held is free again.
    pub(super) fn leave_run(&mut self, id: TaskId) -> Option<Box<Run>> {
        let entry = self.entries.get_mut(&id)?;
        if !matches!(entry.phase, Phase::Running(_)) {
            return None;
        }
        let Phase::Running(mut run) = std::mem::replace(&mut entry.phase, Phase::Waiting) else { return None };
        self.jobs.remove(&run.job);
        self.running -= 1;
        if let Some(lane) = self.lanes.get_mut(run.lane) {
            lane.running -= 1;
            lane.cancels.retain(|job| *job != run.job);
            lane.signals.retain(|(job, ..)| *job != run.job);
        }
        self.free_slots.insert(run.slot);
        self.stock.give_back(std::mem::take(&mut run.held));
        self.allowance.give_back(run.token.take());
        for moment in [run.moment.take(), run.look.take()].into_iter().flatten() {
            self.moments.remove(&(moment, id));
        }
        // Something has ended: there may be room.
        self.starved = None;
        self.changes += 1;
        Some(run)
    }
}
