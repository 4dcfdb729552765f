//! `keys adopt` and `keys rotate` are killed at every call that changes something, before the server has heard of it and
//! after: the same command again finishes what was begun.

use std::{
    net::SocketAddr,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use ota_e2e::process::ServerProcess;
use tokio::{net::TcpListener, process::Child, sync::mpsc, task::JoinSet};

use super::{Scene, path, tells, text};

/// When a command is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The server never hears of the call.
    Before,
    /// The server has done what it was called for, and nobody hears of that.
    After,
}

/// Where a command is killed: at which call, and when.
type Point = (&'static str, Moment);

/// Stands before a server that speaks plain HTTP/2, and tells of the call at which it holds whatever comes.
struct Gate {
    address: SocketAddr,
    point: Arc<Mutex<Option<Point>>>,
    reached: mpsc::UnboundedReceiver<()>,
    _tasks: JoinSet<()>,
}

impl Gate {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let point = Arc::new(Mutex::new(None::<Point>));
        let (tell, reached) = mpsc::unbounded_channel();
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Incoming>();
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&point);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (client, seen, tell) = (client.clone(), Arc::clone(&seen), tell.clone());
                let forward = service_fn(move |mut request: Request<Incoming>| {
                    let (client, tell) = (client.clone(), tell.clone());
                    let point = *seen.lock().unwrap_or_else(PoisonError::into_inner);
                    let moment =
                        point.filter(|(call, _)| request.uri().path().ends_with(call)).map(|(_, moment)| moment);
                    async move {
                        let hold = async || {
                            tell.send(()).ok();
                            std::future::pending::<()>().await;
                        };
                        if moment == Some(Moment::Before) {
                            hold().await;
                        }
                        let to = format!("http://{server}{}", request.uri().path());
                        *request.uri_mut() = to.parse().unwrap();
                        let answer: Response<Incoming> = client.request(request).await.unwrap();
                        if moment == Some(Moment::After) {
                            hold().await;
                        }
                        Ok::<_, std::convert::Infallible>(answer)
                    }
                });
                connections.spawn(async move {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.serve_connection(TokioIo::new(stream), forward).await.ok();
                });
            }
        });
        Self { address, point, reached, _tasks: tasks }
    }

    /// Starts a command and kills it at a point. Answers with how it ended when it never came there.
    async fn kill(&mut self, scene: &Scene, arguments: &[&str], point: Point) -> Option<ExitStatus> {
        *self.point.lock().unwrap() = Some(point);
        let mut child: Child = scene.command(arguments).kill_on_drop(true).spawn().unwrap();
        let ended = tokio::select! {
            reached = self.reached.recv() => {
                reached.unwrap();
                child.kill().await.unwrap();
                None
            }
            status = child.wait() => Some(status.unwrap()),
        };
        *self.point.lock().unwrap() = None;
        ended
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Kills a command at each of these points in turn, and lets it finish then. Returns what it told in the end.
async fn survive(gate: &mut Gate, scene: &Scene, arguments: &[&str], calls: &[&'static str]) -> String {
    for call in calls {
        for moment in [Moment::Before, Moment::After] {
            let ended = gate.kill(scene, arguments, (call, moment)).await;
            assert_eq!(ended, None, "{arguments:?} ended without {call}");
        }
    }
    let output = ota_e2e::binaries::succeed(&mut scene.command(arguments)).await;
    text(&output.stdout)
}

#[tokio::test]
async fn a_ceremony_that_is_killed_at_any_call_is_finished_by_the_same_command() {
    let server = ServerProcess::plain().await;
    let mut gate = Gate::before(server.address()).await;
    let mut scene = Scene::with(server).await;
    scene.url = Some(gate.url());
    scene.takes("1.0.0").await;
    let (one, three) = (scene.root_key(1), scene.root_key(3));

    // Seen from the gate this is another server, for which another key signs: every kind of call is made.
    let roots = scene.roots();
    let adopt = ["keys", "adopt", "--threshold", "2", "--of", "3", "--yes", "--out", path(&roots)];
    let told = survive(&mut gate, &scene, &adopt, &["AddTargetsKey", "PublishTargets", "PublishRoots"]).await;
    tells(&told, &["ADOPTED", "2 of 3"]);
    assert_eq!(std::fs::read_dir(&roots).unwrap().count(), 3);
    scene.otactl(&["keys", "drill", "--root-key", &one, "--root-key", &three]).await;
    scene.takes("2.0.0").await;

    let root_keys = ["--root-key", &one, "--root-key", &three];
    let rotate = [&["keys", "rotate", "snapshot", "--yes"][..], &root_keys].concat();
    survive(&mut gate, &scene, &rotate, &["RotateServerKey", "PublishRoots"]).await;
    scene.takes("3.0.0").await;

    // Root keys: after the last call the old ones are good for nothing, and the command still says how it stands.
    let fresh = scene.server.scratch().join("fresh");
    let rotate = [&["keys", "rotate", "root", "--yes", "--out", path(&fresh)][..], &root_keys].concat();
    tells(&survive(&mut gate, &scene, &rotate, &["PublishRoots"]).await, &["the root keys are replaced"]);
    let [one, two] = [1, 2].map(|number| path(&fresh.join(format!("root-{number}.pem"))).to_owned());
    let root_keys = ["--root-key", &one, "--root-key", &two];
    let targets = [&["keys", "rotate", "targets", "--yes"][..], &root_keys].concat();
    survive(&mut gate, &scene, &targets, &["PublishTargets"]).await;
    scene.takes("4.0.0").await;
}
