//! A server in an attacker's hands, with every key that it has: of the director, of snapshot and of timestamp, of
//! certificates and of sessions. It may choose among what operators signed for this hardware at or above the floor. Nothing
//! else ever runs.

mod attack;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use ota_agent::machine::Outcome;
use ota_domain::Sha256Digest;
use ota_e2e::{
    Impostor, Installation, Operator, TestServer,
    device::sha256,
    installation::{Brought, release},
    operator::crc32c,
    signing,
};
use ota_proto::{
    admin::v1::{DeviceList, EnrollToken, Installer, Release, target::Choice},
    device::v1::{DownloadResponse, ReportProgressResponse, Verdict},
};
use ota_trust::metadata::Target;
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{runtime::Handle, task::spawn_blocking};
use tonic::Status;

use crate::scene::{HARDWARE, app, is_for_device, payload};
use attack::{Attacker, malware};

const ATTACKS: u64 = 1_000;

/// Devices that are attacked at the same time.
const VICTIMS: u64 = 4;

/// Least attacks that have to end in an install that is permitted, for the others to mean anything.
const LEAST_INSTALLS: usize = 20;

/// A fleet with a past, whose operators hold the root keys: 6.0.0 was listed and taken back, releases below 2 are. The
/// device runs 2.0.0.
struct Scene {
    server: TestServer,
    device: Installation,
    attacker: Arc<Attacker>,
    permitted: BTreeMap<String, Target>,
}

impl Scene {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let admin = server.admin();
        let impostor = Impostor::of(&server).await;
        let string = admin.enrollment_string(EnrollToken { max_uses: 1, ..Default::default() }).await;
        let device = Installation::enroll(&impostor.url(), &string, HARDWARE).await;
        let mut releases = Vec::new();
        for number in 1..=6 {
            let other = release("app", "4.0.0", 4, &["imx8"], &payload(4));
            let made = publish(&admin, number, if number == 4 { "imx8" } else { HARDWARE }).await;
            assert_eq!(signing::target(&made), if number == 4 { other } else { app(number) });
            releases.push(made);
        }
        let list = |numbers: &[usize]| numbers.iter().map(|number| signing::target(&releases[number - 1])).collect();
        let insert = async |targets: Vec<Target>| {
            admin.edit_targets(|catalog| targets.iter().for_each(|one| catalog.insert(one.clone()))).await
        };
        insert(list(&[1, 2, 3, 4])).await.expect("operators list what they made");
        assert_eq!(order(&admin, &device, &releases[0]).await, [Outcome::Committed]);
        insert(list(&[6])).await.expect("operators list what they made");
        let yesterday = admin.image_repository().await.expect("anybody reads the list");
        insert(list(&[5])).await.expect("operators list what they made");
        let edited = admin.edit_targets(|catalog| {
            catalog.remove("app/6.0.0");
            catalog.raise_floor(&app(1).custom.package, 2);
        });
        edited.await.expect("operators take back what they listed");
        admin.adopt().await;
        assert_eq!(order(&admin, &device, &releases[1]).await, [Outcome::Committed]);

        let held = device.trusted().versions();
        let attacker = Attacker::of(&server, &admin, device.device(), held.director.targets, yesterday).await;
        let repository = admin.image_repository().await.expect("anybody reads the list");
        let listed = repository.targets("targets").expect("a list").targets.values();
        let permitted: BTreeMap<_, _> = listed
            .filter(|target| is_for_device(target) && target.custom.release_counter >= 2)
            .map(|target| (target.custom.version.to_string(), target.clone()))
            .collect();
        assert_eq!(permitted.keys().map(String::as_str).collect::<Vec<_>>(), ["2.0.0", "3.0.0", "5.0.0"]);
        Self { server, device, attacker: Arc::new(attacker), permitted }
    }
}

async fn publish(admin: &Operator, number: u32, hardware: &str) -> Release {
    let release = Release {
        installer: Installer::File.into(),
        hardware: vec![hardware.to_owned()],
        payload: format!("payloads/{}", admin.upload(&payload(number)).await),
        ..Default::default()
    };
    let made = admin.create_unsigned_release("app", &format!("{number}.0.0"), release).await;
    made.expect("a publisher makes a release")
}

/// Orders a release as an honest server does.
async fn order(admin: &Operator, device: &Installation, release: &Release) -> Vec<Outcome> {
    let choice = Choice::Devices(DeviceList { names: vec![format!("devices/{}", device.device())] });
    admin.create_rollout(release, choice).await.expect("a release that is signed is assigned");
    device.call().await.expect("an honest server answers").ends
}

/// What the impostor has for the device at the moment.
struct Plan {
    rng: StdRng,
    now: DateTime<Utc>,
    payloads: BTreeMap<Sha256Digest, Bytes>,
    tried: Vec<String>,
}

/// Makes an impostor attack whoever calls it.
fn lie(impostor: &Impostor, attacker: &Arc<Attacker>, plan: &Arc<Mutex<Plan>>) {
    let (attacker, planned) = (Arc::clone(attacker), Arc::clone(plan));
    impostor.lies().check_in.tell(move |asked, _| {
        let mut plan = planned.lock().expect("no test panics here");
        let Plan { rng, now, payloads, tried } = &mut *plan;
        let brought = attacker.attack(&asked.request.nonce, *now, rng);
        tried.push(attack::describe(&brought));
        let Brought { answer, payloads: honest, forged } = brought;
        *payloads = honest.into_iter().map(|bytes| (sha256(&bytes), bytes)).chain(forged).collect();
        Ok(answer)
    });
    let planned = Arc::clone(plan);
    impostor.lies().download.tell(move |asked, _| {
        let plan = planned.lock().expect("no test panics here");
        let wanted = Sha256Digest::try_from(asked.request.sha256.as_ref()).expect("a device asks for a hash");
        let bytes = plan.payloads.get(&wanted).ok_or_else(|| Status::not_found("the attacker has nothing like it"))?;
        let data = bytes.slice(usize::try_from(asked.request.offset).expect("an offset")..);
        let piece = DownloadResponse { offset: asked.request.offset, crc32c: crc32c(&data), data };
        Ok(Box::pin(tokio_stream::once(Ok(piece))))
    });
    // The genuine server would call off what it never ordered.
    let go_on = ReportProgressResponse { verdict: Verdict::Continue.into() };
    impostor.lies().report_progress.tell(move |_, _| Ok(go_on));
}

/// Tries these attacks and returns how many installs came of them.
async fn attempt(scene: &Scene, seed: u64, numbers: impl Iterator<Item = u64>) -> usize {
    let impostor = Impostor::of(&scene.server).await;
    let package = app(1).custom.package;
    let held = scene.device.trusted().versions();
    let mut installs = 0;
    for number in numbers {
        let mut device = scene.device.twin();
        device.point_to(&impostor.url());
        let rng = StdRng::seed_from_u64(seed ^ number);
        let plan = Plan { rng, now: device.now(), payloads: BTreeMap::new(), tried: Vec::new() };
        let plan = Arc::new(Mutex::new(plan));
        lie(&impostor, &scene.attacker, &plan);
        // One after the other, on the same device: an attack may prepare the next.
        for _ in 0..2 {
            {
                let mut plan = plan.lock().expect("no test panics here");
                let wait = scene.attacker.wait(&mut plan.rng);
                plan.now += wait;
                device.set_time(plan.now);
            }
            let visit = device.call().await.unwrap_or_else(|error| panic!("attack {number} of {seed}: {error:?}"));
            installs += visit.ends.iter().filter(|end| **end == Outcome::Committed).count();
            let tried = plan.lock().expect("no test panics here").tried.clone();
            let what = format!("attack {number} of seed {seed}: {tried:?}: {visit:?}");
            for running in device.runs() {
                let version = running.version.to_string();
                let signed = scene.permitted.get(&version).unwrap_or_else(|| panic!("{version} runs after {what}"));
                assert_eq!(running.package, package, "{what}");
                assert_eq!(running.payload.sha256, signed.sha256, "{what}");
                assert_eq!(running.release_counter, signed.custom.release_counter, "{what}");
                let major = version.split('.').next().and_then(|major| major.parse().ok()).expect("a version");
                assert_eq!(device.content("app"), Some(payload(major).to_vec()), "{what}");
            }
            assert!(device.content("app").is_some(), "the device goes on running: {what}");
            let contains_malware = |bytes: &Vec<u8>| bytes.windows(7).any(|window| window == &malware()[..7]);
            assert!(!device.content("app").as_ref().is_some_and(contains_malware), "{what}");
            let now_held = device.trusted().versions();
            assert!(now_held.image.root == held.image.root && now_held.director.root == held.director.root, "{what}");
            assert!(now_held.image.targets >= held.image.targets, "{what}");
            assert!(now_held.director.targets >= held.director.targets, "{what}");
            assert!(device.trusted().floor(&package) >= 2, "{what}");
        }
    }
    installs
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_that_no_operator_signed_for_this_device() {
    let scene = Arc::new(Scene::start().await);
    let seed: u64 = rand::random();
    println!("seed {seed}");
    // An agent is not shared between threads: each gets one of its own.
    let handle = Handle::current();
    let victims: Vec<_> = (0..VICTIMS)
        .map(|victim| {
            let (scene, handle) = (Arc::clone(&scene), handle.clone());
            let numbers = (victim..ATTACKS).step_by(VICTIMS as usize);
            spawn_blocking(move || handle.block_on(attempt(&scene, seed, numbers)))
        })
        .collect();
    let mut installs = 0;
    for victim in victims {
        installs += victim.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    }
    println!("{installs} installs of permitted releases in {ATTACKS} attacks");
    assert!(installs >= LEAST_INSTALLS, "the attacks are not even able to do what is permitted: {installs}");
}
