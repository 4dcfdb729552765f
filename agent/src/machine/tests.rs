use ota_domain::Sha256Digest;
use ota_domain::release::{Installer, Payload};
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use super::*;

const OLD: Sha256Digest = Sha256Digest([1; 32]);
const NEW: Sha256Digest = Sha256Digest([2; 32]);

fn release(payload: Sha256Digest, version: &str) -> Release {
    Release {
        package: "app".parse().unwrap(),
        version: version.parse().unwrap(),
        payload: Payload { sha256: payload, size_bytes: 4 },
        release_counter: 1,
        installer: Installer::Directory,
    }
}

fn job(attempt: u32) -> Job {
    Job {
        deployment: DeploymentId(Uuid::from_u128(7)),
        attempt,
        release: release(NEW, "2.0.0"),
        hardware: Vec::new(),
        unpacked_size_bytes: 0,
        bandwidth_limit: None,
        download_deadline: None,
        verify_deadline: None,
    }
}

fn offer(attempt: u32, present: Present) -> Event {
    Event::Offered { job: job(attempt), from: Some(release(OLD, "1.0.0")), present, unfit: None }
}

fn unwell() -> Failure {
    failure(FailureCode::Health, "not well")
}

/// Feeds events from the idle state and returns where they lead.
fn after(events: Vec<Event>) -> (State, Vec<Effect>) {
    events.into_iter().fold((State::default(), Vec::new()), |(state, _), event| step(state, event))
}

fn outcome(state: &State) -> Option<&Outcome> {
    match &state.phase {
        Phase::Ended { outcome, .. } => Some(outcome),
        Phase::Idle
        | Phase::Downloading { .. }
        | Phase::Verified { .. }
        | Phase::Activating { .. }
        | Phase::Trial { .. }
        | Phase::Returning { .. } => None,
    }
}

#[test]
fn the_good_path_commits_only_after_health() {
    let path = [offer(1, Present::Nothing), Event::Downloaded, Event::Installed, Event::Activated];
    let (trial, effects) = after(path.to_vec());
    assert!(matches!(trial.phase, Phase::Trial { starts_left: TRIAL_STARTS, .. }));
    assert_eq!(effects, [Effect::Try]);
    let (ended, effects) = step(trial, Event::Healthy);
    assert_eq!(outcome(&ended), Some(&Outcome::Committed));
    assert_eq!(effects, [Effect::CollectGarbage, Effect::Announce]);
    let (idle, _) = step(ended, Event::Acknowledged);
    assert_eq!(idle.phase, Phase::Idle);
}

#[test]
fn a_release_that_is_forbidden_at_the_last_moment_is_not_touched_nor_gone_back_from() {
    let path = [offer(1, Present::Nothing), Event::Downloaded, Event::Installed, Event::Forbidden(unwell())];
    let (state, effects) = after(path.to_vec());
    assert_eq!(outcome(&state), Some(&Outcome::Failed(unwell())));
    assert_eq!(effects, [Effect::Announce], "the tree stays for the next attempt");
    let running = after([&path[..3], &[Event::Activated]].concat()).0;
    assert_eq!(step(running.clone(), path[3].clone()), (running, Vec::new()), "what was switched to stays on trial");
}

#[test]
fn an_end_without_a_network_is_kept_until_it_is_told() {
    let path = [offer(1, Present::Nothing), Event::Downloaded, Event::InstallFailed(unwell()), Event::PutOff];
    let (state, effects) = after(path.to_vec());
    assert!(state.phase == Phase::Idle && effects.is_empty() && state.settled[0].is_untold);
    let other = DeploymentId(Uuid::from_u128(8));
    assert_eq!(step(state.clone(), Event::Told { deployment: other }).0, state);
    let (state, _) = step(state, Event::Told { deployment: job(1).deployment });
    assert!(!state.settled[0].is_untold);
}

#[test]
fn an_unhealthy_release_is_undone() {
    let path = [
        offer(1, Present::Nothing),
        Event::Downloaded,
        Event::Installed,
        Event::Activated,
        Event::Unhealthy(unwell()),
        Event::Returned { trouble: None },
    ];
    assert_eq!(outcome(&after(path.to_vec()).0), Some(&Outcome::RolledBack(unwell())));
}

#[test]
fn a_switch_that_did_not_happen_is_a_failure_and_not_a_rollback() {
    let failed = Event::ActivationFailed { failure: unwell(), switched: false };
    let path =
        [offer(1, Present::Nothing), Event::Downloaded, Event::Installed, failed, Event::Returned { trouble: None }];
    assert_eq!(outcome(&after(path.to_vec()).0), Some(&Outcome::Failed(unwell())));
}

#[test]
fn the_server_can_call_off_until_the_switch_and_not_later() {
    let steps = [offer(1, Present::Nothing), Event::Downloaded, Event::Installed, Event::Activated];
    for (count, expected) in [(1, true), (2, true), (3, false), (4, false)] {
        let (before, _) = after(steps[..count].to_vec());
        let (state, effects) = step(before.clone(), Event::Aborted);
        if expected {
            assert_eq!(outcome(&state), Some(&Outcome::Canceled));
            assert_eq!(effects, [Effect::DropDownload, Effect::Announce]);
        } else {
            assert_eq!((state, effects), (before, vec![]));
        }
    }
}

#[test]
fn an_attempt_that_ended_is_answered_again_and_not_repeated() {
    let path =
        [offer(1, Present::Nothing), Event::DownloadFailed(unwell()), Event::Acknowledged, offer(1, Present::Nothing)];
    let (again, effects) = after(path.to_vec());
    assert_eq!(outcome(&again), Some(&Outcome::Failed(unwell())));
    assert!(!effects.contains(&Effect::Download));
    let (idle, _) = step(again, Event::Acknowledged);
    let (next, _) = step(idle, offer(2, Present::Nothing));
    assert!(matches!(next.phase, Phase::Downloading { .. }), "the next attempt is a new intent");
}

#[test]
fn an_attempt_that_was_called_off_can_be_taken_up_again() {
    let path = [offer(1, Present::Nothing), Event::Aborted, Event::Acknowledged, offer(1, Present::Nothing)];
    assert!(matches!(after(path.to_vec()).0.phase, Phase::Downloading { .. }));
}

#[test]
fn a_release_that_runs_already_is_not_installed_again() {
    assert_eq!(outcome(&after(vec![offer(1, Present::Running)]).0), Some(&Outcome::Committed));
}

#[test]
fn an_unfit_release_is_answered_without_a_download() {
    let unfit = failure(FailureCode::Hardware, "for another board");
    let event = Event::Offered { job: job(1), from: None, present: Present::Nothing, unfit: Some(unfit.clone()) };
    let (state, effects) = after(vec![event]);
    assert_eq!(outcome(&state), Some(&Outcome::Failed(unfit)));
    assert_eq!(effects, [Effect::CollectGarbage, Effect::Announce]);
}

#[test]
fn after_a_lost_journal_the_first_offer_changes_nothing() {
    let lost = State { journal_lost: true, ..State::default() };
    let (state, effects) = step(lost.clone(), offer(1, Present::Nothing));
    assert!(matches!(outcome(&state), Some(Outcome::Failed(Failure { code: FailureCode::JournalLost, .. }))));
    assert!(!effects.contains(&Effect::Download));
    let (running, effects) = step(lost, offer(1, Present::Running));
    assert!(matches!(running.phase, Phase::Trial { .. }), "what may have been on trial proves itself once more");
    assert_eq!(effects, [Effect::Try]);
}

#[test]
fn a_disk_that_keeps_losing_the_payload_ends_the_work() {
    let (mut state, _) = after(vec![offer(1, Present::Nothing)]);
    let mut downloads = 0;
    while matches!(state.phase, Phase::Downloading { .. }) {
        state = step(state, Event::Downloaded).0;
        state = step(state, Event::PayloadLost).0;
        downloads += 1;
    }
    assert_eq!(downloads, MAX_LOSSES + 1);
    assert!(matches!(outcome(&state), Some(Outcome::Failed(Failure { code: FailureCode::Checksum, .. }))));
}

#[test]
fn going_back_is_tried_a_bounded_number_of_times() {
    let (mut state, _) =
        after(vec![offer(1, Present::Tree), Event::ActivationFailed { failure: unwell(), switched: true }]);
    let mut tries = 0;
    while matches!(state.phase, Phase::Returning { .. }) {
        state = step(state, Event::ReturnFailed).0;
        tries += 1;
    }
    assert_eq!(tries, RETURN_TRIES);
}

#[test]
fn a_trial_survives_a_bounded_number_of_starts() {
    let (mut state, _) = after(vec![offer(1, Present::Tree), Event::Activated]);
    let found = Found { current: Some(NEW), part_bytes: 0 };
    let mut starts = 0;
    loop {
        let (next, effects) = recover(state, found);
        state = next;
        if effects == [Effect::Return] {
            break;
        }
        assert_eq!(effects, [Effect::Try]);
        starts += 1;
    }
    assert_eq!(starts, TRIAL_STARTS);
}

#[test]
fn a_download_that_never_grows_ends_and_one_that_grows_goes_on() {
    let (start, _) = after(vec![offer(1, Present::Nothing)]);
    let starts = |grows: u64| {
        let mut state = start.clone();
        (1..100).find(|count| {
            state = recover(state.clone(), Found { current: Some(OLD), part_bytes: count * grows }).0;
            outcome(&state).is_some()
        })
    };
    assert!(starts(0).is_some());
    assert_eq!(starts(1), None);
}

#[test]
fn no_phase_before_the_trial_brings_the_agent_down_for_ever() {
    let steps = [offer(1, Present::Nothing), Event::Downloaded, Event::Installed];
    for count in 1..=steps.len() {
        for current in [OLD, NEW] {
            let (mut state, _) = after(steps[..count].to_vec());
            let found = Found { current: Some(current), part_bytes: 0 };
            let starts = (1..100).find(|_| {
                let (next, effects) = recover(state.clone(), found);
                state = if effects == [Effect::CheckTree] { step(next, Event::TreeWhole).0 } else { next };
                matches!(state.phase, Phase::Returning { .. } | Phase::Ended { .. })
            });
            assert!(starts.is_some_and(|starts| starts > 20), "{starts:?} {:?}", state.phase);
        }
    }
}

#[test]
fn settled_deployments_are_forgotten_at_some_point() {
    let mut state = State::default();
    for id in 0..100 {
        let job = Job { deployment: DeploymentId(Uuid::from_u128(id)), ..job(1) };
        state = step(state, Event::Refused { job }).0;
        state = step(state, Event::Acknowledged).0;
    }
    assert_eq!(state.settled.len(), SETTLED_KEPT);
    assert_eq!(state.settled[0].deployment, DeploymentId(Uuid::from_u128(100 - SETTLED_KEPT as u128)));
}

/// What effects do to a disk, at the grain at which a power cut can interrupt them.
#[derive(Debug, Clone)]
struct Disk {
    current: Sha256Digest,
    new_tree: bool,
    part: u64,
    was_healthy: bool,
}

/// How the world answers one effect.
#[derive(Debug, Clone, Copy)]
struct World {
    is_good: bool,
    aborts: bool,
}

impl Disk {
    /// Runs `effect` up to `cut` (0 = nothing happened, 2 = all of it) and tells what the driver would.
    fn run(&mut self, effect: Effect, world: World, cut: u8) -> Option<Event> {
        let reached = |point: u8| cut > point;
        match effect {
            Effect::Download => {
                if reached(0) {
                    self.part = 2;
                }
                if reached(1) {
                    self.part = 4;
                }
                Some(if world.aborts {
                    Event::Aborted
                } else if world.is_good {
                    Event::Downloaded
                } else {
                    Event::DownloadFailed(unwell())
                })
            }
            Effect::DropDownload => {
                if reached(0) {
                    self.part = 0;
                }
                None
            }
            Effect::ReportInstalling => world.aborts.then_some(Event::Aborted),
            Effect::Install => {
                if self.new_tree {
                    return Some(Event::Installed);
                }
                if self.part < 4 {
                    return Some(Event::PayloadLost);
                }
                if !world.is_good {
                    return Some(Event::InstallFailed(unwell()));
                }
                self.new_tree = reached(0);
                if reached(1) {
                    self.part = 0;
                }
                Some(Event::Installed)
            }
            Effect::CheckTree => Some(if self.new_tree { Event::TreeWhole } else { Event::TreeDamaged }),
            Effect::DropTree => {
                if reached(0) {
                    self.current = OLD;
                }
                if reached(1) {
                    self.new_tree = false;
                }
                None
            }
            Effect::Activate => {
                assert!(self.new_tree, "switched to a tree that is not whole");
                if world.aborts && self.current != NEW {
                    return Some(Event::Forbidden(unwell()));
                }
                if reached(0) {
                    self.current = NEW;
                }
                if world.is_good {
                    Some(Event::Activated)
                } else {
                    Some(Event::ActivationFailed { failure: unwell(), switched: self.current == NEW })
                }
            }
            Effect::Try => {
                assert_eq!(self.current, NEW);
                if world.is_good && reached(1) {
                    self.was_healthy = true;
                }
                Some(if world.is_good { Event::Healthy } else { Event::Unhealthy(unwell()) })
            }
            Effect::Return => {
                if reached(0) {
                    self.current = OLD;
                }
                Some(if self.current == OLD { Event::Returned { trouble: None } } else { Event::ReturnFailed })
            }
            Effect::CollectGarbage => {
                if reached(0) {
                    self.part = 0;
                }
                if reached(1) && self.current == OLD {
                    self.new_tree = false;
                }
                None
            }
            Effect::Announce => world.is_good.then_some(Event::Acknowledged),
        }
    }
}

fn check(state: &State, disk: &Disk) -> Result<(), TestCaseError> {
    prop_assert!(disk.current == OLD || disk.new_tree, "neither old nor new: {disk:?}");
    match outcome(state) {
        Some(Outcome::Committed) => prop_assert!(disk.current == NEW && disk.was_healthy, "committed unproven"),
        Some(Outcome::RolledBack(_) | Outcome::Failed(_)) => prop_assert_eq!(disk.current, OLD),
        Some(Outcome::Rejected(_) | Outcome::Canceled) | None => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Crashes anywhere, in the middle of effects and of recoveries, also with the newest journal generation damaged:
    /// the device always runs old or new, never commits without health, and comes to an end.
    #[test]
    fn a_crash_anywhere_ends_in_old_or_new(
        script in prop::collection::vec((any::<bool>(), prop::bool::weighted(0.05), prop::option::weighted(0.4, 0u8..3)), 0..60),
        older_generation in prop::collection::vec(prop::bool::weighted(0.2), 60),
        pick in any::<Index>(),
    ) {
        let mut disk = Disk { current: OLD, new_tree: false, part: 0, was_healthy: false };
        let (mut state, effects) = step(State::default(), offer(1, Present::Nothing));
        let mut generations = vec![State::default(), state.clone()];
        let mut queue = std::collections::VecDeque::from(effects);
        let calm_from = pick.index(script.len() + 1);
        for turn in 0..600 {
            let (is_good, aborts, crash) = script.get(turn).copied().unwrap_or((true, false, None));
            let crash = crash.filter(|_| turn < calm_from);
            let Some(effect) = queue.pop_front() else { break };
            let event = disk.run(effect, World { is_good, aborts }, crash.unwrap_or(2));
            check(&state, &disk)?;
            if crash.is_some() {
                // What is damaged is never read again: the next record takes its place.
                if older_generation[turn % 60] && generations.len() > 1 {
                    generations.pop();
                }
                let saved = generations.last().cloned().unwrap_or_default();
                let found = Found { current: Some(disk.current), part_bytes: disk.part };
                let (recovered, effects) = recover(saved, found);
                state = recovered;
                generations.push(state.clone());
                queue = effects.into();
                if state.phase == Phase::Idle && effects_done(&queue) {
                    // The server offers it again at the next check-in.
                    let present = if disk.current == NEW { Present::Running } else { Present::Nothing };
                    if present == Present::Running { break; }
                    let (next, effects) = step(state, offer(2, present));
                    state = next;
                    generations.push(state.clone());
                    queue = effects.into();
                }
            } else if let Some(event) = event {
                let (next, effects) = step(state.clone(), event);
                if next != state {
                    generations.push(next.clone());
                }
                if next != state || !effects.is_empty() {
                    queue = effects.into();
                }
                state = next;
            } else if effect == Effect::Announce {
                queue.push_back(Effect::Announce);
            }
            check(&state, &disk)?;
        }
        prop_assert!(queue.is_empty(), "does not come to an end: {state:?}");
        prop_assert!(state.phase == Phase::Idle, "{state:?}");
    }
}

fn effects_done(queue: &std::collections::VecDeque<Effect>) -> bool {
    queue.is_empty()
}
