//! Makes up attacks: what each part of an answer may be is drawn at random from all that the keys allow.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use ota_domain::{DeviceId, release::Installer};
use ota_e2e::{
    Operator, TestServer,
    device::sha256,
    installation::{Brought, release},
    signed::deployment,
};
use ota_proto::{
    admin::v1::Repository as Which,
    device::v1::{CheckInResponse, MetadataUpdate, TargetsDocument},
};
use ota_server::keys::SigningKeys;
use ota_trust::{
    key::{PrivateKey, Signer},
    metadata::{Freshness, Mode, Role, Root, Snapshot, Target, Targets, Timestamp, read, sign},
    verify::Repository,
};
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use uuid::Uuid;

use crate::scene::{HARDWARE, app, payload};

/// What the attacker has.
pub(super) struct Attacker {
    /// All that the server has.
    server: SigningKeys,
    own: PrivateKey,
    image: Repository,
    /// The image repository as it was before the last publication.
    yesterday: Repository,
    director_root: Vec<u8>,
    /// The last order that the device took.
    order: u64,
    device: DeviceId,
}

pub(super) fn malware() -> Bytes {
    Bytes::from_static(b"malware that no operator signed")
}

pub(super) fn describe(brought: &Brought) -> String {
    let orders: Vec<_> = brought.answer.deployments.iter().map(|order| &order.version).collect();
    let metadata = brought.answer.metadata.as_ref();
    let roots = metadata.map_or(0, |metadata| metadata.image_roots.len() + metadata.director_roots.len());
    format!("orders {orders:?}, {roots} roots, {} forged payloads", brought.forged.len())
}

impl Attacker {
    /// Takes over a server whose operators hold the root keys.
    pub(super) async fn of(
        server: &TestServer,
        admin: &Operator,
        device: DeviceId,
        order: u64,
        yesterday: Repository,
    ) -> Self {
        let mut connection = server.pool().acquire().await.expect("a connection");
        let keys = server.app().keys.signing(&mut connection).await.expect("the server opens its keys");
        assert_eq!(keys.iter().count(), 3, "of the director, of snapshot and of timestamp");
        Self {
            server: keys,
            own: PrivateKey::generate().expect("random numbers"),
            image: admin.image_repository().await.expect("anybody reads the list"),
            yesterday,
            director_root: admin.document(Which::Director, "root", 0).await.expect("anybody reads a root"),
            order,
            device,
        }
    }

    /// How long it lies low.
    pub(super) fn wait(&self, rng: &mut StdRng) -> TimeDelta {
        TimeDelta::hours(*[0, 0, 1, 13, 25, 24 * 8].choose(rng).expect("some"))
    }

    /// Answers a check-in that came with this nonce.
    pub(super) fn attack(&self, nonce: &[u8], now: DateTime<Utc>, rng: &mut StdRng) -> Brought {
        let targets: Vec<Target> = (0..rng.random_range(1..3)).map(|_| self.target(rng)).collect();
        let mut metadata = MetadataUpdate::default();
        let version = self.order + *[1, 1, 1, 2, 3, 0, 1 << 40].choose(rng).expect("some");
        if often(rng) {
            self.direct(&mut metadata, &targets, version, now, rng);
        }
        if often(rng) {
            self.list(&mut metadata, &targets, now, rng);
        }
        if seldom(rng) {
            self.take_over(&mut metadata, now, rng);
        }
        if !nonce.is_empty() && often(rng) {
            let nonce = if seldom(rng) { vec![0; 16] } else { nonce.to_vec() };
            let time = now + TimeDelta::hours(*[0, 0, 0, -48, 1].choose(rng).expect("some"));
            let proof = Freshness { device: self.someone(rng), nonce, director_version: version, time };
            metadata.freshness = self.sign(&proof, &self.server.director, rng);
        }
        if seldom(rng) {
            self.flip(&mut metadata, rng);
        }
        let mut orders = targets.clone();
        if rng.random_ratio(1, 4) {
            orders = orders.into_iter().map(|order| lie(order, rng)).collect();
        }
        let mut brought = Brought {
            answer: CheckInResponse {
                deployments: orders.iter().map(deployment).collect(),
                metadata: often(rng).then_some(metadata),
                ..Default::default()
            },
            payloads: (1..=6).map(payload).chain([malware()]).collect(),
            forged: Vec::new(),
        };
        if seldom(rng) {
            let (real, length) = (app(3), payload(3).len());
            brought.payloads.retain(|bytes| *bytes != payload(3));
            brought.forged.push((real.sha256, malware().slice(..length)));
        }
        brought
    }

    /// What it would like the device to run: what was signed, what was signed once, and what never was.
    fn target(&self, rng: &mut StdRng) -> Target {
        let mut target = match rng.random_range(0..12) {
            0..=1 => release("app", "9.0.0", 9, &[HARDWARE], &malware()),
            2 => release("app", "3.0.0", 3, &[HARDWARE], &malware()),
            3 => release("other", "1.0.0", 1, &[HARDWARE], &malware()),
            4 => app(6),
            5 => app(1),
            6 => release("app", "4.0.0", 4, &["imx8"], &payload(4)),
            7 => app(2),
            8 => app(5),
            _ => app(3),
        };
        if seldom(rng) {
            match rng.random_range(0..6) {
                0 => target.custom.hardware = vec![],
                1 => target.custom.hardware = vec![HARDWARE.parse().expect("a hardware type")],
                2 => target.custom.release_counter += rng.random_range(-5..1_000),
                3 => target.custom.installer = Installer::Directory,
                4 => target.length += 1,
                _ => target.custom.floor = rng.random_range(-5..5),
            }
        }
        // As the operators signed the floor, for what is otherwise honest.
        if often(rng)
            && let Some(listed) = self.image.target(&target.path()).ok().flatten()
        {
            target.custom.floor = listed.custom.floor;
        }
        target
    }

    /// Signs orders.
    fn direct(
        &self,
        metadata: &mut MetadataUpdate,
        targets: &[Target],
        version: u64,
        now: DateTime<Utc>,
        rng: &mut StdRng,
    ) {
        let expires = now + self.life(rng);
        let device = if seldom(rng) { None } else { Some(self.someone(rng)) };
        let targets = targets.iter().map(|target| (target.path(), target.clone())).collect();
        let orders = Targets { version, expires, targets, delegations: None, device };
        let meta = [("targets.json".to_owned(), self.off(version, rng))].into();
        let snapshot = Snapshot { version, expires: now + self.life(rng), meta };
        let timestamp = Timestamp { version, expires: now + self.life(rng), snapshot_version: self.off(version, rng) };
        metadata.director_targets = self.sign(&orders, &self.server.director, rng);
        metadata.director_snapshot = self.sign(&snapshot, &self.server.director, rng);
        metadata.director_timestamp = self.sign(&timestamp, &self.server.director, rng);
    }

    /// Sends a list of what may be installed: today's, yesterday's, or its own.
    fn list(&self, metadata: &mut MetadataUpdate, targets: &[Target], now: DateTime<Utc>, rng: &mut StdRng) {
        let source = if seldom(rng) { &self.yesterday } else { &self.image };
        let bytes = |role: Role| Bytes::from(source.bytes(role.as_str()).expect("a repository that is whole").to_vec());
        let mut list = bytes(Role::Targets);
        let mut version = source.versions().targets;
        if seldom(rng) {
            let mut forged: Targets = read(&list).expect("a list");
            forged.version += rng.random_range(0..3);
            forged.targets.extend(targets.iter().map(|target| (target.path(), target.clone())));
            version = forged.version;
            let keys: [&dyn Signer; 4] =
                [&self.own, &self.server.director, &self.server.image_snapshot, &self.server.image_timestamp];
            let one = keys.choose(rng).expect("some");
            list = match rng.random_range(0..3) {
                0 => sign(&forged, &[]),
                1 => sign(&forged, &[*one]),
                _ => sign(&forged, &keys),
            }
            .expect("a signature")
            .into();
        }
        metadata.image_targets = vec![TargetsDocument { role: "targets".to_owned(), document: list }];
        if seldom(rng) {
            metadata.image_snapshot = bytes(Role::Snapshot);
            metadata.image_timestamp = bytes(Role::Timestamp);
            return;
        }
        // It holds these keys: it can say that any list is the newest.
        let versions = self.image.versions();
        let snapshot_version = versions.snapshot + rng.random_range(0..3);
        let meta = [("targets.json".to_owned(), self.off(version, rng))].into();
        let snapshot = Snapshot { version: snapshot_version, expires: now + self.life(rng), meta };
        let timestamp = Timestamp {
            version: versions.timestamp + rng.random_range(0..3),
            expires: now + self.life(rng),
            snapshot_version: self.off(snapshot_version, rng),
        };
        metadata.image_snapshot = self.sign(&snapshot, &self.server.image_snapshot, rng);
        metadata.image_timestamp = self.sign(&timestamp, &self.server.image_timestamp, rng);
    }

    /// Makes roots in which its own key has every role.
    fn take_over(&self, metadata: &mut MetadataUpdate, now: DateTime<Utc>, rng: &mut StdRng) {
        let root = |bytes: &[u8], rng: &mut StdRng| {
            let old: Root = read(bytes).expect("a root");
            let mut root = old.next(now + TimeDelta::days(365));
            root.mode = Mode::Adopted;
            for role in Role::ALL {
                if role == Role::Targets || rng.random() {
                    root.set_role(role, 1, &[self.own.public_key()]);
                }
            }
            let signers: [&dyn Signer; 4] =
                [&self.own, &self.server.director, &self.server.image_snapshot, &self.server.image_timestamp];
            let count = rng.random_range(0..=signers.len());
            Bytes::from(sign(&root, &signers[..count]).expect("a signature"))
        };
        if rng.random() {
            metadata.image_roots = vec![root(self.image.root_bytes(), rng)];
        } else {
            metadata.director_roots = vec![root(&self.director_root, rng)];
        }
    }

    fn flip(&self, metadata: &mut MetadataUpdate, rng: &mut StdRng) {
        let documents = [
            &mut metadata.director_targets,
            &mut metadata.director_snapshot,
            &mut metadata.director_timestamp,
            &mut metadata.image_snapshot,
            &mut metadata.image_timestamp,
            &mut metadata.freshness,
        ];
        for document in documents {
            if !document.is_empty() && rng.random() {
                let mut bytes = document.to_vec();
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
                *document = bytes.into();
            }
        }
    }

    fn sign<T: ota_trust::metadata::Document>(&self, document: &T, key: &dyn Signer, rng: &mut StdRng) -> Bytes {
        let key: &dyn Signer = if seldom(rng) { &self.own } else { key };
        // What cannot even be signed is not sent.
        sign(document, &[key]).map(Bytes::from).unwrap_or_default()
    }

    fn someone(&self, rng: &mut StdRng) -> DeviceId {
        if seldom(rng) { DeviceId(Uuid::from_u128(rng.random())) } else { self.device }
    }

    fn life(&self, rng: &mut StdRng) -> TimeDelta {
        TimeDelta::days(*[1, 1, 1, 1, 30, 3_650, -1].choose(rng).expect("some"))
    }

    fn off(&self, version: u64, rng: &mut StdRng) -> u64 {
        if seldom(rng) { version.saturating_add_signed(rng.random_range(-2..3)) } else { version }
    }
}

/// Makes an order say something else of the release that it names.
fn lie(mut order: Target, rng: &mut StdRng) -> Target {
    match rng.random_range(0..6) {
        0..=1 => (order.sha256, order.length) = (sha256(&malware()), malware().len() as u64),
        2 => order.custom.release_counter += 1,
        3 => order.custom.hardware.clear(),
        4 => order.custom.installer = Installer::Directory,
        _ => order.custom.version = app(2).custom.version,
    }
    order
}

/// Every part of an attack is a lie so seldom that some attacks are no lie at all.
fn seldom(rng: &mut StdRng) -> bool {
    rng.random_ratio(1, 14)
}

fn often(rng: &mut StdRng) -> bool {
    !seldom(rng)
}
