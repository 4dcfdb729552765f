//! A real server with its own Postgres, a real agent, and the hands of somebody who owns the server's machine: they change
//! its disk and its database, or speak to the agent in its place.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use ota_e2e::{Impostor, Installation, Operator, TestServer, binaries::succeed, eventually, process::AgentProcess};
use ota_proto::{
    admin::v1::{Deployment, DeploymentState, DeviceList, EnrollToken, Release, target::Choice},
    device::v1::{CheckInResponse, TrustFault},
};
use ota_server::keys::SigningKeys;
use serde_json::Value;
use tonic::Status;

/// How long a broken test takes to fail.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Fleet {
    pub(crate) server: TestServer,
    /// What the agent takes for the server. Tells the truth until it is told to lie.
    pub(crate) impostor: Impostor,
    pub(crate) admin: Operator,
    pub(crate) agent: AgentProcess,
    /// The release that the device runs at first.
    pub(crate) first: Release,
}

impl Fleet {
    /// A device of the hardware type `test` that runs `app` 1.0.0.
    pub(crate) async fn start() -> Self {
        let server = TestServer::start().await;
        let admin = server.admin();
        let string = admin.enrollment_string(EnrollToken { max_uses: 1, ..Default::default() }).await;
        let impostor = Impostor::of(&server).await;
        let agent = AgentProcess::enroll(&impostor.url(), &string).await;
        let first = admin.publish("app", "1.0.0", &payload("1.0.0")).await;
        let fleet = Self { server, impostor, admin, agent, first };
        fleet.update_to(&fleet.first).await;
        fleet.assert_runs("1.0.0").await;
        fleet
    }

    pub(crate) async fn publish(&self, version: &str) -> Release {
        self.admin.publish("app", version, &payload(version)).await
    }

    /// Enrols another device, with a clock that the test sets.
    pub(crate) async fn join(&self) -> Installation {
        let string = self.admin.enrollment_string(EnrollToken { max_uses: 1, ..Default::default() }).await;
        Installation::enroll(&self.impostor.url(), &string, "test").await
    }

    pub(crate) async fn assign(&self, release: &Release) {
        self.assign_to(self.agent.name(), release).await;
    }

    pub(crate) async fn assign_to(&self, device: String, release: &Release) {
        let choice = Choice::Devices(DeviceList { names: vec![device] });
        self.admin.create_rollout(release, choice).await.expect("a release that is signed is assigned");
    }

    /// Assigns a release and lets the agent do what it believes it should.
    pub(crate) async fn update_to(&self, release: &Release) {
        self.assign(release).await;
        self.agent.once().await;
    }

    /// Assigns a release and keeps the order from the agent, which goes on as it is.
    pub(crate) async fn withhold(&self, release: &Release) -> CheckInResponse {
        self.assign(release).await;
        // A busy machine may keep the server from an answer; then a device asks again.
        let order = eventually("the order comes", LIMIT, async || {
            let heard =
                self.listen(async { println!("{:?}", self.agent.once().await) }, |_| CheckInResponse::default());
            heard.await.inspect_err(|error| println!("{error}")).ok()
        })
        .await;
        assert_eq!(order.deployments.len(), 1, "{order:?}");
        order
    }

    /// Keeps from whoever checks in meanwhile what the server answers, and returns it.
    pub(crate) async fn withheld_from(&self, check_in: impl Future<Output = ()>) -> CheckInResponse {
        self.listen(check_in, |_| CheckInResponse::default()).await.expect("an answer")
    }

    /// Returns what the server answers to whoever checks in meanwhile.
    pub(crate) async fn overheard(&self, check_in: impl Future<Output = ()>) -> CheckInResponse {
        self.listen(check_in, CheckInResponse::clone).await.expect("an answer")
    }

    async fn listen(
        &self,
        check_in: impl Future<Output = ()>,
        told: fn(&CheckInResponse) -> CheckInResponse,
    ) -> Result<CheckInResponse, Status> {
        let kept = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&kept);
        self.impostor.lies().check_in.tell(move |_, truth| {
            let mut kept = keep.lock().expect("no test panics here");
            kept.insert(truth).as_ref().map(told).map_err(Status::clone)
        });
        check_in.await;
        self.impostor.lies().check_in.stop();
        let answer = kept.lock().expect("no test panics here").take();
        answer.unwrap_or_else(|| Err(Status::not_found("nobody checked in")))
    }

    /// Returns what the server signs with: all that is on its machine.
    pub(crate) async fn keys(&self) -> SigningKeys {
        let mut connection = self.server.pool().acquire().await.expect("a connection");
        self.server.app().keys.signing(&mut connection).await.expect("the server opens its keys")
    }

    /// Answers every check-in like this from here on.
    pub(crate) fn replay(&self, answer: CheckInResponse) {
        self.impostor.lies().check_in.tell(move |_, _| Ok(answer.clone()));
    }

    /// Changes the database behind the server's back.
    pub(crate) async fn tamper(&self, statement: &'static str) {
        let changed = sqlx::raw_sql(statement).execute(self.server.pool()).await.expect("a statement");
        assert!(changed.rows_affected() > 0, "{statement} changes nothing");
    }

    pub(crate) async fn assert_runs(&self, version: &str) {
        let content = fs::read(self.agent.current("app").join("app")).expect("the device runs something");
        assert_eq!(Bytes::from(content), payload(version));
        let device = self.admin.device(&self.agent.name()).await;
        assert!(device.running.iter().all(|running| running.version == version), "{:?}", device.running);
    }

    /// Asserts that the device told its people and its server that it does not believe what it is sent, and why.
    pub(crate) async fn assert_alarmed(&self, fault: TrustFault) {
        let fault = fault.as_str_name().trim_start_matches("TRUST_FAULT_");
        let status = self.status().await;
        let shown = &status["trust"]["last_fault"];
        assert_eq!(shown["fault"].as_str().map(str::to_uppercase).as_deref(), Some(fault), "{status}");
        assert_eq!(shown["is_current"], true, "{status}");
        // It says so when it checks in the next time.
        eventually("the server heard of it", LIMIT, async || {
            self.agent.once().await;
            (self.admin.device(&self.agent.name()).await.trust_fault == fault).then_some(())
        })
        .await;
    }

    /// Returns what the agent shows to people at the device.
    pub(crate) async fn status(&self) -> Value {
        let mut command = tokio::process::Command::from(self.agent.command("status"));
        let output = succeed(command.args(["--output", "json"])).await;
        serde_json::from_slice(&output.stdout).expect("the status in JSON")
    }

    /// Returns how the device's last deployment failed.
    pub(crate) async fn failure(&self) -> String {
        let deployments = self.admin.deployments(&self.agent.name()).await;
        let last = |one: &&Deployment| one.create_time.map(|time| (time.seconds, time.nanos));
        let deployment = deployments.iter().max_by_key(last).expect("a deployment");
        assert_eq!(deployment.state(), DeploymentState::Failed, "{deployment:?}");
        deployment.failure.as_ref().expect("a failed deployment says why").code.clone()
    }
}

pub(crate) fn payload(version: &str) -> Bytes {
    Bytes::from(format!("app {version} of a real fleet"))
}
