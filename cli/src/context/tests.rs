use super::*;

fn url(text: &str) -> ServerUrl {
    text.parse().unwrap()
}

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

fn two() -> Contexts {
    let mut contexts = Contexts { current: Some("lab".to_owned()), ..Contexts::default() };
    for (name, server) in [("lab", "http://127.0.0.1:1"), ("site", "http://127.0.0.1:2")] {
        let context = Context {
            server: url(server),
            token: token(&format!("token-of-{name}")),
            insecure: false,
            certificate_authority: None,
            login: None,
        };
        contexts.contexts.insert(name.to_owned(), context);
    }
    contexts
}

#[test]
fn a_file_is_read_back_as_written_and_only_its_owner_may() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/config.toml");
    two().save(&path).unwrap();
    assert_eq!(Contexts::load(&path).unwrap(), two());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(exposed(&path), None);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(exposed(&path).is_some());
}

#[test]
fn a_missing_file_holds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Contexts::load(&folder.path().join("none.toml")).unwrap(), Contexts::default());
}

#[test]
fn a_damaged_file_is_named_without_showing_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, "[contexts.lab]\nserver = \"http://127.0.0.1:1\"\ntoken = \"hush-hush\n").unwrap();
    let text = Contexts::load(&path).unwrap_err().to_string();
    assert!(text.contains("config.toml is damaged") && !text.contains("hush"), "{text}");
}

#[test]
fn an_option_beats_the_current_context() {
    let overrides = Overrides { context: Some("site".to_owned()), ..Overrides::default() };
    assert_eq!(two().target(overrides).unwrap().route.server, url("http://127.0.0.1:2"));
    let overrides = Overrides { token: Some(token("other")), ..Overrides::default() };
    let target = two().target(overrides).unwrap();
    assert_eq!((target.route.server, target.token), (url("http://127.0.0.1:1"), token("other")));
}

#[test]
fn a_saved_token_is_never_shown_to_another_server() {
    let overrides = Overrides { server: Some(url("http://127.0.0.1:9")), ..Overrides::default() };
    assert_eq!(two().target(overrides).unwrap_err().exit().code(), 4);
    let overrides = Overrides { server: Some(url("http://127.0.0.1:1")), ..Overrides::default() };
    assert_eq!(two().target(overrides).unwrap().token, token("token-of-lab"));
}

#[test]
fn nothing_saved_and_nothing_said_means_not_logged_in() {
    assert_eq!(Contexts::default().target(Overrides::default()).unwrap_err().exit().code(), 4);
}

#[test]
fn an_unknown_context_is_a_usage_error_that_names_the_known_ones() {
    let overrides = Overrides { context: Some("moon".to_owned()), ..Overrides::default() };
    let failure = two().target(overrides).unwrap_err();
    assert_eq!(failure.exit().code(), 2);
    assert!(failure.to_string().contains("lab, site"), "{failure}");
}

#[test]
fn insecure_is_remembered_for_its_own_server_alone() {
    let mut contexts = two();
    let far = Context {
        server: url("http://10.0.0.1:1"),
        token: token("t"),
        insecure: true,
        certificate_authority: None,
        login: None,
    };
    contexts.contexts.insert("far".to_owned(), far);
    let overrides = Overrides { context: Some("far".to_owned()), ..Overrides::default() };
    assert!(contexts.target(overrides).is_ok());
    let overrides = Overrides {
        context: Some("far".to_owned()),
        server: Some(url("http://10.0.0.2:1")),
        token: Some(token("t")),
        ..Overrides::default()
    };
    assert_eq!(contexts.target(overrides).unwrap_err().exit().code(), 2);
}

#[test]
fn an_authority_is_kept_with_its_server_and_believed_for_that_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let mut contexts = two();
    let authority = crate::authority::tests::built_in();
    let server = url("https://10.0.0.1:1");
    let safe = Context {
        server: server.clone(),
        token: token("t"),
        insecure: false,
        certificate_authority: Some(authority.clone()),
        login: None,
    };
    contexts.contexts.insert("safe".to_owned(), safe);
    contexts.save(&path).unwrap();
    let contexts = Contexts::load(&path).unwrap();
    let overrides = |server: &str| Overrides {
        context: Some("safe".to_owned()),
        server: Some(url(server)),
        token: Some(token("t")),
        ..Overrides::default()
    };
    let target = contexts.target(overrides("https://10.0.0.1:1")).unwrap();
    assert_eq!((target.route.authority, target.name.as_str()), (Some(authority), "safe"));
    let target = contexts.target(overrides("https://10.0.0.2:1")).unwrap();
    assert_eq!((target.route.authority, target.name.as_str()), (None, "10.0.0.2_1"));
}
