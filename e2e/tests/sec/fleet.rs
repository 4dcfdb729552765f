//! A real server with its own Postgres, a real agent, and the hands of somebody who owns the server's machine.

use std::fs;

use bytes::Bytes;
use ota_e2e::{Operator, TestServer, process::AgentProcess};
use ota_proto::admin::v1::{Deployment, DeploymentState, DeviceList, EnrollToken, Release, target::Choice};

pub(crate) struct Fleet {
    pub(crate) server: TestServer,
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
        let agent = AgentProcess::enroll(&server.url(), &string).await;
        let first = admin.publish("app", "1.0.0", &payload("1.0.0")).await;
        let fleet = Self { server, admin, agent, first };
        fleet.update_to(&fleet.first).await;
        fleet.assert_runs("1.0.0").await;
        fleet
    }

    pub(crate) async fn publish(&self, version: &str) -> Release {
        self.admin.publish("app", version, &payload(version)).await
    }

    /// Assigns a release and lets the agent do what it believes it should.
    pub(crate) async fn update_to(&self, release: &Release) {
        let choice = Choice::Devices(DeviceList { names: vec![self.agent.name()] });
        self.admin.create_rollout(release, choice).await.expect("a release that is signed is assigned");
        self.agent.once().await;
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
