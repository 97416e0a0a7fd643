//! What users wish of a pool: tasks are taken or refused, cancelled, stopped altogether.

use super::*;

impl Core {
    /// Takes tasks that may wait for each other. Nothing is taken if one of them is wrong.
    pub(in crate::pool) fn submit(
        &mut self,
        tasks: Vec<Submission>,
        capabilities: &[Capabilities],
        now: Instant,
    ) -> Result<Vec<Arc<Claim>>, (Error, Vec<Submission>)> {
        static TASKS: AtomicU64 = AtomicU64::new(0);
        let first = TASKS.fetch_add(tasks.len() as u64, Ordering::Relaxed) + 1;
        let ids: Vec<TaskId> = (first..).map(TaskId).take(tasks.len()).collect();
        let wishes = match self.wishes(&tasks, &ids, capabilities) {
            Ok(wishes) => wishes,
            Err(error) => return Err((error, tasks)),
        };
        let afters: Vec<Vec<TaskId>> =
            wishes.iter().map(|wish| wish.after.iter().map(|(id, _)| *id).collect()).collect();
        let doomed = match self.line.add(wishes) {
            Ok(doomed) => doomed,
            Err(cycle) => {
                let label = |id: &TaskId| {
                    let place = ids.iter().position(|other| other == id);
                    place.and_then(|place| tasks.get(place)).map_or_else(String::new, |(task, ..)| task.to_string())
                };
                let names: Vec<String> = cycle.iter().chain(cycle.first()).map(label).collect();
                let error = Error::invalid(format!("tasks wait for each other: {}", names.join(" after ")));
                return Err((error, tasks));
            }
        };
        self.changes += 1;
        let claims: Vec<_> =
            ids.iter().zip(&tasks).map(|(id, (task, ..))| self.known.add(*id, task.name.clone())).collect();
        for (((task, index, delivery), claim), after) in tasks.into_iter().zip(&claims).zip(afters) {
            let (id, claim) = (claim.id, Arc::clone(claim));
            let after = after.into_iter().filter_map(|id| self.known.claim(id)).collect();
            let task = Arc::new(task);
            if self.is_observed {
                self.outbox.push_back(Effect::Submitted { id, task: Arc::clone(&task), at: now });
            }
            let entry = Entry {
                task,
                claim,
                after,
                index,
                delivery,
                submitted: now,
                attempts: 0,
                cancelled: false,
                unstarted: None,
                phase: Phase::Waiting,
            };
            self.entries.insert(id, entry);
        }
        self.doom(doomed, now);
        if let Some(reason) = self.halted.clone() {
            // Nobody else waits: those were told when it was halted.
            for id in &ids {
                self.line.remove(*id);
            }
            for id in &ids {
                self.tell_off(*id, &reason, now);
            }
        }
        Ok(claims)
    }

    pub(super) fn wishes(
        &self,
        tasks: &[Submission],
        ids: &[TaskId],
        capabilities: &[Capabilities],
    ) -> Result<Vec<Wish>, Error> {
        if self.closed {
            return Err(Error::invalid("the pool is closed"));
        }
        let mut names: HashMap<&str, TaskId> = HashMap::new();
        for ((task, ..), &id) in tasks.iter().zip(ids) {
            if let Some(name) = task.name.as_deref()
                && (self.known.named(name).is_some() || names.insert(name, id).is_some())
            {
                return Err(Error::invalid(format!("there are two tasks named {name:?}")));
            }
        }
        let wish = |((task, ..), &id): (&Submission, &TaskId)| -> Result<Wish, Error> {
            let named = |error: Error| error.of_command(|| task.to_string());
            self.stock.check(&task.needs).map_err(named)?;
            // One place that can run it is enough.
            let lacking = capabilities.iter().map(|place| lacks(task, place)).collect::<Option<Vec<_>>>();
            if let Some(lack) = lacking.and_then(|lacks| lacks.into_iter().next()) {
                return Err(named(Error::new(ErrorKind::Unsupported).detail(lack)));
            }
            if self.is_stranded(task) {
                return Err(named(Error::new(ErrorKind::Engine).detail(STRANDED)));
            }
            let mut after = Vec::with_capacity(task.after.len());
            for earlier in &task.after {
                let id = match &earlier.what {
                    Earlier::Name(name) => names.get(&**name).copied().or_else(|| self.known.named(name)),
                    Earlier::Id(id) => self.known.claim(*id).map(|claim| claim.id),
                };
                let what = || match &earlier.what {
                    Earlier::Name(name) => format!("there is no task named {name:?} to wait for"),
                    Earlier::Id(id) => format!("task {id} is not of this pool, or was over long ago"),
                };
                after.push((id.ok_or_else(|| named(Error::invalid(what())))?, earlier.succeeds));
            }
            let (group, priority, estimate) = (task.group.clone(), task.priority, task.estimate);
            Ok(Wish { id, group, priority, estimate, after })
        };
        tasks.iter().zip(ids).map(wish).collect()
    }

    /// The names of what it waits for that no task has had yet.
    pub(in crate::pool) fn unknown_names(&self, task: &Task) -> BTreeSet<Arc<str>> {
        let names = task.after.iter().filter_map(|earlier| match &earlier.what {
            Earlier::Name(name) => Some(name),
            Earlier::Id(_) => None,
        });
        names.filter(|name| self.known.named(name).is_none()).cloned().collect()
    }

    /// Wishes that a task be cancelled. False if its last word was said.
    pub(in crate::pool) fn cancel(&mut self, id: TaskId, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.cancelled = true;
        match entry.phase {
            Phase::Running(_) => self.end_run(id, Outcome::Cancelled { confirmed: false }, now),
            _ => {
                self.line.remove(id);
                self.tell_cancelled(id, "cancelled before it was started", now);
            }
        }
        true
    }

    /// No new tasks; what waits is cancelled, and what runs is stopped.
    pub(in crate::pool) fn terminate(&mut self, now: Instant) {
        (self.closed, self.terminated, self.services_end) = (true, true, true);
        for id in self.entries.keys().copied().collect::<BTreeSet<_>>() {
            self.cancel(id, now);
        }
    }

    /// What follows from a change: services end when nothing else is left.
    pub(in crate::pool) fn settle(&mut self, now: Instant) {
        self.end_next_service(now);
    }

    /// Of these services one is to end, if all that is open waits for the end of one: first those that were not started yet, then the one that
    /// was started last.
    pub(in crate::pool) fn end_service_of(&mut self, ids: &HashSet<TaskId>, open: &HashSet<TaskId>, now: Instant) {
        let waiting = self.line.waiting_for_ends(ids.iter().copied());
        if open.iter().any(|id| !ids.contains(id) && !waiting.contains(id)) {
            return;
        }
        let is_to_come = |id: &&TaskId| self.entries.contains_key(id) && !self.services.contains(id);
        let to_come = ids.iter().find(is_to_come);
        if let Some(id) = to_come.or_else(|| self.services.iter().rev().find(|id| ids.contains(id))).copied() {
            self.cancel(id, now);
        }
    }
}
