use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::mpsc,
    thread,
};

use super::*;

/// What a provider answers, in order: status line, body. `{issuer}` stands for its address.
type Answers = Vec<(&'static str, String)>;

/// A small provider. Sends what it was asked: the request line, then the body.
fn provider(answers: Answers) -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::channel();
    let address = issuer.clone();
    thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut request = String::new();
            reader.read_line(&mut request).unwrap();
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut form = vec![0; length];
            reader.read_exact(&mut form).unwrap();
            sender.send((request.trim().to_owned(), String::from_utf8(form).unwrap())).unwrap();
            let body = body.replace("{issuer}", &address);
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
        }
    });
    (issuer, receiver)
}

fn metadata() -> (&'static str, String) {
    let text =
        r#"{"issuer":"{issuer}","token_endpoint":"{issuer}/token","device_authorization_endpoint":"{issuer}/device"}"#;
    ("200 OK", text.to_owned())
}

fn id_token(exp: i64) -> String {
    let claims = data_encoding::BASE64URL_NOPAD.encode(format!(r#"{{"exp":{exp},"sub":"kim"}}"#).as_bytes());
    format!("e30.{claims}.c2ln")
}

fn invitation() -> (&'static str, String) {
    let text = r#"{"device_code":"dev","user_code":"ABCD-EFGH","verification_uri":"https://id.example/go","expires_in":60,"interval":1}"#;
    ("200 OK", text.to_owned())
}

#[tokio::test]
async fn a_person_logs_in_with_a_code_and_the_token_renews_itself() {
    let done = format!(r#"{{"id_token":"{}","refresh_token":"r1"}}"#, id_token(2_000_000_000));
    let renewed = format!(r#"{{"id_token":"{}"}}"#, id_token(2_000_003_600));
    let answers = vec![
        metadata(),
        invitation(),
        ("400 Bad Request", r#"{"error":"authorization_pending"}"#.to_owned()),
        ("200 OK", done),
        ("200 OK", renewed),
    ];
    let (issuer, asked) = provider(answers);
    let provider = Provider::discover(&issuer, "otactl").await.unwrap();
    let invitation = provider.invite(&["openid".to_owned(), "offline_access".to_owned()]).await.unwrap();
    assert_eq!(invitation.user_code, "ABCD-EFGH");
    let (token, login) = provider.wait(&invitation).await.unwrap();
    assert_eq!(token, Token::parse(&id_token(2_000_000_000)).unwrap());
    assert_eq!(login.expires.timestamp(), 2_000_000_000);
    assert!(!format!("{login:?}").contains("r1"));
    let (token, login) = provider.renew(&login).await.unwrap();
    assert_eq!(token, Token::parse(&id_token(2_000_003_600)).unwrap());
    assert_eq!(login.refresh_token.as_deref(), Some("r1"));
    let asked: Vec<_> = asked.try_iter().collect();
    assert_eq!(
        asked[1],
        ("POST /device HTTP/1.1".to_owned(), "client_id=otactl&scope=openid+offline_access".to_owned())
    );
    assert!(
        asked[3].1.contains("device_code=dev") && asked[3].1.contains("grant-type%3Adevice_code"),
        "{:?}",
        asked[3]
    );
    assert_eq!(asked[4].1, "grant_type=refresh_token&refresh_token=r1&client_id=otactl");
}

#[test]
fn every_answer_of_the_provider_has_a_meaning() {
    let answer = |error: &str| Step::from(TokenAnswer { error: Some(error.to_owned()), ..TokenAnswer::default() });
    assert_eq!(answer("authorization_pending"), Step::Pending);
    assert_eq!(answer("slow_down"), Step::SlowDown);
    for end in ["access_denied", "expired_token", "invalid_grant", "server_error"] {
        assert!(matches!(answer(end), Step::Refused(_)), "{end}");
    }
    assert!(matches!(Step::from(TokenAnswer::default()), Step::Refused(_)));
}

#[tokio::test]
async fn a_provider_that_says_it_is_another_is_refused() {
    let other = r#"{"issuer":"https://other.example","token_endpoint":"https://other.example/token"}"#;
    let (issuer, _asked) = provider(vec![("200 OK", other.to_owned())]);
    let text = Provider::discover(&issuer, "otactl").await.unwrap_err().to_string();
    assert!(text.contains("says that it is https://other.example"), "{text}");
}

#[tokio::test]
async fn no_secret_travels_in_the_clear() {
    for address in ["http://id.example", "ftp://id.example", "id.example", ""] {
        assert!(Provider::discover(address, "otactl").await.unwrap_err().to_string().contains("not encrypted"));
    }
    let endpoint = r#"{"issuer":"{issuer}","token_endpoint":"http://id.example/token"}"#;
    let (issuer, _asked) = provider(vec![("200 OK", endpoint.to_owned())]);
    assert!(Provider::discover(&issuer, "otactl").await.unwrap_err().to_string().contains("not encrypted"));
}

#[test]
fn a_token_is_renewed_a_minute_before_it_runs_out() {
    let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
    let login = Login {
        issuer: "https://id.example".to_owned(),
        client_id: "otactl".to_owned(),
        expires: at(1_000),
        refresh_token: None,
    };
    assert!(!login.is_due(at(940)));
    assert!(login.is_due(at(941)) && login.is_due(at(2_000)));
    assert_eq!(expiry("nonsense"), None);
    assert_eq!(expiry("a.b.c"), None);
}
