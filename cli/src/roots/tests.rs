use ota_trust::key::PrivateKey;

use super::*;

fn now() -> DateTime<Utc> {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn keys(count: usize) -> Vec<PrivateKey> {
    (0..count).map(|_| PrivateKey::generate().unwrap()).collect()
}

fn signers(keys: &[PrivateKey]) -> Vec<&dyn Signer> {
    keys.iter().map(|key| key as &dyn Signer).collect()
}

/// Both repositories with these root keys.
fn roots(mode: Mode, threshold: u32, root_keys: &[PrivateKey]) -> Roots {
    let online = PrivateKey::generate().unwrap();
    let public = [online.public_key()];
    let mut root = Root::first(mode, now() + Role::Root.lifetime(), &Role::ALL.map(|role| (role, public.as_slice())));
    let root_keys_public: Vec<_> = root_keys.iter().map(Signer::public_key).collect();
    root.set_role(Role::Root, threshold, &root_keys_public);
    let bytes = metadata::sign(&root, &signers(root_keys)).unwrap();
    let repository = Repository::from_root(&bytes).unwrap();
    Roots { image: repository.clone(), director: repository }
}

fn renew(draft: &mut Draft<'_>) -> Result<(), Failure> {
    draft.renewed = true;
    Ok(())
}

#[test]
fn any_threshold_of_the_root_keys_signs_what_devices_follow() {
    let held = keys(3);
    let roots = roots(Mode::Adopted, 2, &held);
    for pair in [[0, 1], [0, 2], [1, 2]] {
        let two = pair.map(|at| &held[at] as &dyn Signer);
        let next = roots.next(now(), &two, &renew).unwrap();
        let mut device = roots.image.clone();
        device.update_root(&next.image.unwrap()).unwrap();
        assert_eq!(device.root().version, 2);
    }
}

#[test]
fn too_few_root_keys_are_named_and_nothing_is_made() {
    let held = keys(3);
    let roots = roots(Mode::Adopted, 2, &held);
    let twice: [&dyn Signer; 2] = [&held[0], &held[0]];
    let text = roots.next(now(), &twice, &renew).unwrap_err().to_string();
    assert!(text.contains("2 of the 3 root keys in use have to sign, and 1 of them at hand is too few"), "{text}");
    assert!(text.contains(&format!("{}: missing", held[1].public_key().id())), "{text}");
    let stranger = keys(2);
    assert!(roots.next(now(), &signers(&stranger), &renew).is_err());
}

#[test]
fn new_root_keys_need_the_old_ones_and_themselves() {
    let (old, new) = (keys(2), keys(2));
    let roots = roots(Mode::Adopted, 2, &old);
    let rotate = |draft: &mut Draft<'_>| {
        let public: Vec<_> = new.iter().map(Signer::public_key).collect();
        draft.root.set_role(Role::Root, 2, &public);
        Ok(())
    };
    assert!(roots.next(now(), &signers(&old), &rotate).is_err());
    assert!(roots.next(now(), &signers(&new), &rotate).is_err());
    let both: Vec<&dyn Signer> = signers(&old).into_iter().chain(signers(&new)).collect();
    let next = roots.next(now(), &both, &rotate).unwrap();
    let mut device = roots.director.clone();
    device.update_root(&next.director.unwrap()).unwrap();
}

#[test]
fn what_does_not_change_is_not_published() {
    let held = keys(1);
    let roots = roots(Mode::Adopted, 1, &held);
    assert_eq!(roots.next(now(), &signers(&held), &|_| Ok(())).unwrap(), NextRoots::default());
    // Without a key there is nothing to refuse either.
    assert_eq!(roots.next(now(), &[], &|_| Ok(())).unwrap(), NextRoots::default());
    let image_alone = |draft: &mut Draft<'_>| {
        draft.renewed = draft.which == Which::Image;
        Ok(())
    };
    let next = roots.next(now(), &signers(&held), &image_alone).unwrap();
    assert!(next.image.is_some() && next.director.is_none());
}

#[test]
fn a_root_of_the_servers_is_handed_over_with_the_new_keys_signatures() {
    let (server, new) = (keys(1), keys(3));
    let roots = roots(Mode::Managed, 1, &server);
    let adopt = |draft: &mut Draft<'_>| {
        let public: Vec<_> = new.iter().map(Signer::public_key).collect();
        draft.root.mode = Mode::Adopted;
        draft.root.set_role(Role::Root, 2, &public);
        Ok(())
    };
    let next = roots.next(now(), &signers(&new), &adopt).unwrap().image.unwrap();
    let mut device = roots.image.clone();
    assert!(device.update_root(&next).is_err());
    // The server adds its own.
    let crossed = metadata::add_signature(&next, &server[0]).unwrap();
    device.update_root(&crossed).unwrap();
    assert_eq!((device.root().mode, device.root().threshold(Role::Root)), (Mode::Adopted, 2));
}
