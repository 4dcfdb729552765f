//! Three verifiers judge the same repositories: ours, `tough` (Rust) and `python-tuf` (the reference). Wherever they do not
//! agree, `tests/disagreements.md` says why.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod corpus;
mod judges;
mod mutation;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
};

use corpus::{Case, Draft, Random, Workshop};
use mutation::MUTATIONS;

/// Names the Python that has `tuf`; `make test` sets it.
const PYTHON: &str = "OTA_PYTHON";
/// Repositories made of each mutation.
const EACH: u64 = 16;

/// Accepted, or why not.
type Verdict = Result<(), String>;

/// The corpus, and what we say of it.
static CORPUS: LazyLock<(Vec<Case>, Vec<Verdict>)> = LazyLock::new(|| {
    let cases = corpus();
    let verdicts = cases.iter().map(judges::ours).collect();
    (cases, verdicts)
});

fn corpus() -> Vec<Case> {
    let workshop = Workshop::new();
    let mut cases = Vec::new();
    for (name, mutate) in MUTATIONS {
        for seed in 0..EACH {
            let mut random = Random::new(name, seed);
            let mut draft = Draft::new(&workshop, &mut random);
            mutate(&mut draft, &mut random);
            cases.push(draft.finish(name));
        }
    }
    cases
}

/// A mutation, and whether we accept what the other refuses.
type Disagreements = BTreeSet<(String, bool)>;

fn disagreements(cases: &[Case], ours: &[Verdict], theirs: &[Verdict]) -> Disagreements {
    let mut examples = BTreeMap::new();
    for ((case, ours), theirs) in cases.iter().zip(ours).zip(theirs) {
        if ours.is_ok() != theirs.is_ok() {
            examples.entry((case.mutation.to_string(), ours.is_ok())).or_insert((ours, theirs));
        }
    }
    for ((mutation, _), (ours, theirs)) in &examples {
        eprintln!("{mutation}: ours {ours:?}, theirs {theirs:?}");
    }
    examples.into_keys().collect()
}

/// What the file explains of one verifier: rows `| verifier | mutation | accepts or refuses, ours | why |`.
fn explained(verifier: &str) -> Disagreements {
    let text = include_str!("../disagreements.md");
    let rows = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|row| row.get(1) == Some(&verifier))
        .map(|row| (row[2].trim_matches('`').to_owned(), row[3] == "accept"))
        .collect()
}

#[test]
fn tough_agrees_or_it_is_explained() {
    let (cases, ours) = &*CORPUS;
    assert!(cases.len() >= 1_000, "{}", cases.len());
    for (case, verdict) in cases.iter().zip(ours) {
        assert!(case.mutation != "untouched" || verdict.is_ok(), "{verdict:?}");
    }
    let theirs: Vec<_> = cases.iter().map(judges::tough).collect();
    assert_eq!(disagreements(cases, ours, &theirs), explained("tough"));
}

#[test]
fn python_agrees_or_it_is_explained() {
    let Some(mut python) = python("judge.py") else { return };
    let (cases, ours) = &*CORPUS;
    let path = std::env::temp_dir().join(format!("ota-agreement-{}.json", std::process::id()));
    std::fs::write(&path, serde_json::to_vec(cases).unwrap()).unwrap();
    let output = python.arg(&path).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(output.status.success());
    let theirs: Vec<Option<String>> = serde_json::from_slice(&output.stdout).unwrap();
    let theirs: Vec<_> = theirs.into_iter().map(|error| error.map_or(Ok(()), Err)).collect();
    assert_eq!(theirs.len(), cases.len());
    assert_eq!(disagreements(cases, ours, &theirs), explained("python-tuf"));
}

#[test]
fn we_accept_what_python_writes() {
    let Some(mut python) = python("write.py") else { return };
    let output = python.arg("100").stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    let cases: Vec<Case> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(cases.len(), 100);
    for case in cases {
        judges::ours(&case).unwrap();
        judges::tough(&case).unwrap();
    }
}

fn python(script: &str) -> Option<Command> {
    let Some(python) = std::env::var_os(PYTHON) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{PYTHON} is not set: no independent verifier");
        eprintln!("NOT TESTED: an independent verifier. Name a Python with tuf in {PYTHON}.");
        return None;
    };
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agreement").join(script));
    Some(command)
}
