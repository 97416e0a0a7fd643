//! What lanes ask: which task may start where, whether there is room for it, and which lanes have to look.

use super::*;

impl Core {
    /// How many lanes are to be started now; each is added, or has failed, soon.
    pub(in crate::pool) fn lanes_wanted(&mut self) -> usize {
        let (wanted, there) = if self.renews_lanes {
            // No more than there is something to do for.
            (self.lanes_max.min(self.width).min(self.entries.len()), self.alive())
        } else {
            (if self.entries.is_empty() { 0 } else { self.lanes_max }, self.lanes.len())
        };
        let missing = wanted.saturating_sub(there + self.starting);
        self.starting += missing;
        missing
    }

    pub(in crate::pool) fn alive(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.is_alive).count()
    }

    /// Whether there is a lane, or soon will be.
    pub(in crate::pool) fn has_lanes(&self) -> bool {
        self.starting > 0 || self.alive() > 0
    }

    pub(in crate::pool) fn add_lane(&mut self, capabilities: Capabilities, now: Instant) -> usize {
        self.starting = self.starting.saturating_sub(1);
        self.changes += 1;
        let (running, cancels, signals) = (0, Vec::new(), Vec::new());
        let (is_waiting, looked, is_alive) = (false, 0, true);
        self.lanes.push(Lane { capabilities, running, cancels, signals, is_waiting, looked, is_alive });
        // One that was added before may be gone, and this was the last one that its tasks could hope for.
        self.fail_stranded(STRANDED, now);
        self.lanes.len() - 1
    }

    /// A lane that was wanted has not come to be.
    pub(in crate::pool) fn lane_not_started(&mut self, error: &str, now: Instant) {
        self.starting = self.starting.saturating_sub(1);
        self.has_fewer_lanes(error, now);
    }

    /// There is no room for another one: with fewer it takes longer, with none it does not go on.
    pub(in crate::pool) fn has_fewer_lanes(&mut self, error: &str, now: Instant) {
        self.changes += 1;
        if !self.renews_lanes {
            self.fail_stranded(error, now);
        } else if self.has_lanes() {
            self.lanes_max = self.alive() + self.starting;
        } else {
            self.all_lanes_failed(error, now);
        }
    }

    /// What a lane is to do now.
    pub(in crate::pool) fn orders(&mut self, lane: usize, now: Instant) -> Orders {
        let mut orders = Orders::default();
        self.look_at_moments(now, &mut orders);
        self.changes += u64::from(self.allowance.renew(Some(now))) + u64::from(self.pace.renew(now));
        if self.interruption.is_due(now) {
            self.end_runs(now);
        }
        self.end_next_service(now);
        self.look_at_room(now);
        while let Some(job) = self.next_job(lane, now) {
            orders.jobs.push(job);
        }
        self.has_looked(lane);
        if let Some(lane) = self.lanes.get_mut(lane) {
            orders.cancels.append(&mut lane.cancels);
            orders.signals.append(&mut lane.signals);
            // Until it is told to wake up: it waits for its engine next.
            lane.is_waiting = orders.is_empty();
            orders.leave = self.closed && self.entries.is_empty() && lane.running == 0;
            lane.is_alive &= !orders.leave;
        }
        orders.wake = self.lanes_with_work();
        orders.until = self.next_moment(now);
        orders
    }

    /// Those who could not start because there was no room may have a look from time to time.
    pub(super) fn look_at_room(&mut self, now: Instant) {
        if self.is_kept_waiting() && self.admission_again.is_none_or(|again| again <= now) {
            self.admission_again = Some(now + Gauge::AGE_MAX);
            self.changes += 1;
        }
        if self.starved.as_ref().is_some_and(|starved| starved.again <= now) {
            self.changes += 1;
        }
    }

    /// A lane has found all that there was for it. Those that can do the same would find nothing either.
    pub(super) fn has_looked(&mut self, lane: usize) {
        let (share, changes) = (self.share(), self.changes);
        // One could have tried again, and there was nothing for it here: others may.
        self.starved.take_if(|starved| Some(starved.again) <= self.seen);
        let Some(looked) = self.lanes.get_mut(lane) else { return };
        looked.looked = changes;
        if self.running < self.width && looked.capacity(share) > 0 {
            let able = looked.capabilities.clone();
            for other in self.lanes.iter_mut().filter(|other| other.is_waiting && other.looked < changes) {
                if other.capabilities == able {
                    other.looked = changes;
                }
            }
        }
    }

    /// How many tasks each lane is to run, as long as the others have as many.
    pub(super) fn share(&self) -> usize {
        self.width.div_ceil((self.alive() + self.starting).max(1))
    }

    /// Lanes that wait although there is something for them.
    pub(in crate::pool) fn lanes_with_work(&mut self) -> Vec<usize> {
        let mut room = self.width.saturating_sub(self.running).min(self.line.len());
        let now = self.seen;
        if !self.line.has_startable()
            || self.starved.as_ref().is_some_and(|starved| Some(starved.again) > now)
            || self.allowance.is_used_up()
            || self.pace.moment().is_some_and(|moment| Some(moment) > now)
        {
            room = 0;
        }
        let all_over = self.closed && self.entries.is_empty();
        let (share, changes) = (self.share(), self.changes);
        let mut wake = Vec::new();
        for (place, lane) in self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.is_waiting && lane.is_alive) {
            let may_find = room > 0 && lane.looked < changes && lane.capacity(usize::MAX) > 0;
            let is_told = !lane.cancels.is_empty() || !lane.signals.is_empty();
            if may_find || is_told || all_over {
                lane.is_waiting = false;
                wake.push(place);
            }
            if may_find {
                room -= lane.capacity(share).min(room);
            }
        }
        wake
    }

    /// It does not wait any more, and looks for work before it does.
    pub(in crate::pool) fn is_awake(&mut self, lane: usize) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.is_waiting = false;
        }
    }

    /// A lane that waits, and is not to wait any more.
    pub(in crate::pool) fn wake_one(&mut self) -> Option<usize> {
        let place = self.lanes.iter().position(|lane| lane.is_waiting && lane.is_alive)?;
        self.lanes.get_mut(place)?.is_waiting = false;
        Some(place)
    }

    /// There may be work, and the machine is too busy for it.
    pub(super) fn is_kept_waiting(&self) -> bool {
        self.admission.is_some() && self.line.has_startable() && self.running < self.width
    }

    pub(super) fn next_moment(&self, now: Instant) -> Option<Instant> {
        let first = self.moments.first().map(|(moment, _)| *moment);
        let starved = self.starved.as_ref().map(|starved| starved.again);
        let admission = self.is_kept_waiting().then(|| now + Gauge::AGE_MAX);
        let (allowance, grace, pace) = (self.allowance.moment(), self.interruption.moment(), self.pace.moment());
        [first, starved, admission, allowance, grace, pace].into_iter().flatten().min()
    }

    /// The next task that may run on this lane.
    pub(super) fn next_job(&mut self, lane: usize, now: Instant) -> Option<Start> {
        let share = self.share();
        let place = self.lanes.get(lane)?;
        if self.running >= self.width || place.capacity(usize::MAX) == 0 {
            return None;
        }
        if !self.has_room(now) {
            return None;
        }
        let place = self.lanes.get(lane)?;
        let has_its_share = place.capacity(share) == 0;
        let (entries, stock, lanes) = (&self.entries, &mut self.stock, &self.lanes);
        let can_be_of_others = self.starting > 0;
        let is_for_others = |task: &Task| {
            let others = lanes.iter().enumerate().filter(|(other, place)| *other != lane && place.capacity(share) > 0);
            others.into_iter().any(|(_, other)| lacks(task, &other.capabilities).is_none())
        };
        let allowance = &mut self.allowance;
        let (mut held, mut token, mut has_yielded) = (None, None, false);
        let id = self.line.take(&mut |id| {
            let Some(entry) = entries.get(&id) else { return false };
            if lacks(&entry.task, &place.capabilities).is_some() {
                return false;
            }
            if has_its_share && (can_be_of_others || is_for_others(&entry.task)) {
                has_yielded = true;
                return false;
            }
            held = stock.try_take(&entry.task.needs);
            // A service takes no token: with a single one nothing else would ever run.
            if held.is_none() || entry.task.is_service || allowance.take(now, &mut token) {
                return held.is_some();
            }
            held.take().into_iter().for_each(|held| stock.give_back(held));
            false
        });
        self.has_yielded |= has_yielded;
        let id = id?;
        self.begin_run(id, lane, held?, token, now)
    }

    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        if self.allowance.is_used_up() || !self.pace.admits(now) {
            return false;
        }
        if self.starved.as_ref().is_some_and(|starved| now < starved.again) {
            return false;
        }
        let Some(admission) = &self.admission else { return true };
        if !self.line.has_startable() {
            return false;
        }
        self.gauge.admits(admission, self.running, now)
    }

    pub(super) fn begin_run(
        &mut self,
        id: TaskId,
        lane: usize,
        held: Held,
        token: Option<JobToken>,
        now: Instant,
    ) -> Option<Start> {
        let entry = self.entries.get_mut(&id)?;
        let slot = self.free_slots.pop_first().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        entry.attempts += 1;
        if let Some(starved) = &mut self.starved {
            // One only, until it is known whether there is room.
            starved.again = now + ROOM_LOOK;
        }
        self.pace.start(now);
        let task = &entry.task;
        if self.is_observed {
            self.outbox.push_back(Effect::Starting { id, task: Arc::clone(task) });
        }
        let sign = task.ready.as_ref();
        let job = JobId::next();
        let mut command = task.command.clone();
        for (name, value) in held.environment() {
            command = command.env(name, value);
        }
        if token.is_some() && self.lanes.get(lane).is_some_and(|lane| lane.capabilities.local_process) {
            command = self.allowance.configure(command);
        }
        let listens = matches!(sign, Some(ready) if matches!(ready.sign, Sign::Line(_)));
        let order = Box::new(Job {
            id: job,
            command,
            attempt: entry.attempts,
            live: self.wants_output || listens,
            resources: task.needs.clone(),
            inputs: task.inputs.clone(),
            outputs: task.outputs.clone(),
            idempotent: task.idempotent,
        });
        let notifies = match sign.map(|ready| &ready.sign) {
            Some(Sign::Descriptor(number)) => Some(*number),
            _ => None,
        };
        let first = entry.attempts == 1 && !task.is_service && self.skips;
        let skippable = first && entry.after.iter().all(|earlier| earlier.was_skipped());
        let skippable = skippable.then(|| Arc::clone(task));
        let service = match sign {
            Some(ready) => Service::Awaited(later(now, ready.within)),
            None => Service::No,
        };
        let place = self.lanes.get(lane).map_or_else(|| "".into(), |lane| Arc::clone(&lane.capabilities.name));
        let run = Run {
            job,
            lane,
            slot,
            held,
            token,
            place,
            accepted: None,
            moment: None,
            ending: None,
            service,
            look: None,
            heard: [Vec::new(), Vec::new()],
        };
        entry.phase = Phase::Running(Box::new(run));
        self.jobs.insert(job, id);
        self.running += 1;
        // Those it was left to may be full now.
        self.changes += u64::from(std::mem::take(&mut self.has_yielded));
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.running += 1;
        }
        Some(Start { job: order, notifies, skippable })
    }

    /// The engine has taken a job.
    pub(in crate::pool) fn accepted(&mut self, job: JobId, now: Instant) {
        let Some((id, place)) = self.run_of(job).map(|(id, run)| (id, Arc::clone(&run.place))) else { return };
        if self.starved.take().is_some() {
            self.changes += 1;
        }
        self.pace.start(now);
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Phase::Running(run) = &mut entry.phase else { return };
        run.accepted = Some(now);
        let timeout = entry.task.command.timeout;
        let own = self.lanes.get(run.lane).and_then(|lane| lane.capabilities.deadline_granularity);
        // An engine that keeps the time by itself is given what its stop plan may take, and some more.
        let stop = entry.task.command.settings.stop.duration();
        let spare = own.map_or(Duration::ZERO, |grain| grain.saturating_add(stop).saturating_add(CONFIRM_WITHIN));
        // What is being cancelled already has its moment.
        if run.ending.is_none() {
            run.moment = timeout.and_then(|timeout| now.checked_add(timeout.saturating_add(spare)));
            self.moments.extend(run.moment.map(|moment| (moment, id)));
        }
        if let Service::Awaited(_) = run.service {
            run.look = Some(now);
            self.moments.insert((now, id));
            if !self.services.contains(&id) && entry.task.is_service {
                self.services.push(id);
            }
        }
        if self.is_observed {
            let task = Arc::clone(&entry.task);
            let (attempt, slot) = (entry.attempts, run.slot);
            self.outbox.push_back(Effect::Started { id, task, attempt, slot, place, at: now });
        }
    }

    /// A job was not started, because its task is known to have succeeded before.
    pub(in crate::pool) fn skip(&mut self, job: JobId, now: Instant) {
        let Some(id) = self.jobs.get(&job).copied() else { return };
        let run = self.leave_run(id);
        self.pace.take_back();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.attempts = 0;
        entry.claim.skip();
        let output = Output {
            command: entry.task.command.to_string(),
            status: Some(ExitStatus::from_code(0)),
            accepted: Accepted::Any,
            ..Output::default()
        };
        self.resolve(id, run, Outcome::Exited(0), Ok(output), now);
    }

    /// The engine has not taken a job.
    pub(in crate::pool) fn refused(&mut self, job: JobId, refusal: Refusal, now: Instant) {
        let Some(id) = self.jobs.get(&job).copied() else { return };
        let tries = self.starved.as_ref().map_or(0, |starved| starved.tries);
        let started = self.leave_run(id);
        self.pace.take_back();
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match refusal {
            Refusal::Later(error) => {
                entry.attempts -= 1;
                if started.as_ref().is_some_and(|run| run.ending.is_some()) || entry.cancelled {
                    return self.tell_cancelled(id, "cancelled before it was started", now);
                }
                if let Some(reason) = self.halted.clone() {
                    return self.tell_off(id, &reason, now);
                }
                // With others running one waits for the end of one of them; alone, one tries again after a while.
                let is_alone = self.running == 0;
                if is_alone && tries >= ROOM_TRIES {
                    return self.finish(id, started, Outcome::NotStarted, Err(error), now);
                }
                let pause = if is_alone { ROOM_PAUSE * (1 << tries.min(16)) } else { ROOM_LOOK };
                let tries = if is_alone { tries + 1 } else { 0 };
                self.starved = Some(Starved { tries, again: now + pause });
                self.put_back(id);
            }
            Refusal::Never(error) => {
                entry.attempts -= 1;
                self.finish(id, started, Outcome::NotStarted, Err(error), now);
            }
        }
    }

    /// It is to be run again.
    pub(super) fn put_back(&mut self, id: TaskId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.phase = Phase::Waiting;
        self.line.put_back(id);
        self.changes += 1;
    }

    pub(super) fn run_of(&mut self, job: JobId) -> Option<(TaskId, &mut Run)> {
        let id = *self.jobs.get(&job)?;
        match &mut self.entries.get_mut(&id)?.phase {
            Phase::Running(run) if run.job == job => Some((id, run)),
            _ => None,
        }
    }
}
