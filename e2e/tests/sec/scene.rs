//! What every attack begins with: a fleet with a few releases, and a device that runs the first of them.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use ota_agent::{client::Question, machine::Outcome};
use ota_domain::release::fits;
use ota_e2e::{
    Installation, World,
    installation::{Brought, Visit, release},
};
use ota_trust::metadata::Target;

/// The hardware of the device under attack.
pub(crate) const HARDWARE: &str = "rpi4";

/// Later than any program was built: a device takes no earlier time than that for true.
pub(crate) fn noon() -> DateTime<Utc> {
    "2100-01-01T12:00:00Z".parse().expect("a time")
}

pub(crate) fn hours(hours: i64) -> TimeDelta {
    TimeDelta::hours(hours)
}

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) device: Installation,
}

impl Scene {
    /// Releases 1.0.0 to 3.0.0 of `app` are there for the device's hardware, 4.0.0 for another. The device runs 1.0.0.
    pub(crate) async fn start() -> Self {
        let mut world = World::new(noon());
        world.publish(noon(), |catalog| {
            for number in 1..=3 {
                catalog.insert(app(number));
            }
            catalog.insert(release("app", "4.0.0", 4, &["imx8"], &payload(4)));
        });
        let device = Installation::new(&world, HARDWARE, noon());
        let mut scene = Self { world, device };
        assert_eq!(scene.update_to(1).await.ends, [Outcome::Committed]);
        scene
    }

    /// Orders a release as an honest server would.
    pub(crate) async fn update_to(&mut self, number: u32) -> Visit {
        let (device, now) = (self.device.device(), self.device.now());
        let world = &mut self.world;
        self.device.visit(|question| order(world, device, number, question, now)).await
    }

    /// Returns what an honest server would send to order a release, to a device that asks for no proof of freshness.
    pub(crate) fn order(&mut self, number: u32) -> Brought {
        order(&mut self.world, self.device.device(), number, &Question::default(), self.device.now())
    }

    /// Hands in what an attacker made up.
    pub(crate) async fn attack(&self, brought: Brought) -> Visit {
        self.device.visit(|_| brought).await
    }

    /// Asserts that the device runs this release and no other.
    pub(crate) fn assert_runs(&self, number: u32) {
        assert_eq!(self.device.content("app"), Some(payload(number).to_vec()));
        let versions: Vec<_> = self.device.runs().iter().map(|release| release.version.to_string()).collect();
        assert_eq!(versions, [format!("{number}.0.0")]);
    }
}

pub(crate) fn order(
    world: &mut World,
    device: ota_domain::DeviceId,
    number: u32,
    question: &Question,
    now: DateTime<Utc>,
) -> Brought {
    let nonce = question.nonce.map(Vec::from).unwrap_or_default();
    let answer = world.answer(device, &[listed(world, number)], &nonce, now);
    Brought { answer, payloads: vec![payload(number)], ..Brought::default() }
}

/// Returns a release as the image repository lists it.
pub(crate) fn listed(world: &World, number: u32) -> Target {
    let path = format!("app/{number}.0.0");
    world.image.target(&path).expect("a repository that is whole").expect("a release that is listed").clone()
}

pub(crate) fn payload(number: u32) -> Bytes {
    Bytes::from(format!("this is app {number}.0.0"))
}

pub(crate) fn app(number: u32) -> Target {
    release("app", &format!("{number}.0.0"), i64::from(number), &[HARDWARE], &payload(number))
}

/// Tells whether a list allows a release on the device's hardware.
pub(crate) fn is_for_device(target: &Target) -> bool {
    fits(&target.custom.hardware, &HARDWARE.parse().expect("a hardware type"))
}
