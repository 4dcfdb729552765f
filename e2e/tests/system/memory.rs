//! Memory stays bounded, whatever the size of the payload. `OTA_MEMORY_PAYLOAD_MIB` sets that; the full claim is 1,024.

use ota_e2e::process::{Process, ServerProcess};

use crate::fleet::{MIB, assert_installed, assign, enroll, make_folder, publish, setting, succeeded};

/// Most memory above idle.
const ABOVE_IDLE: u64 = 64 * MIB;

fn resident(process: &Process) -> u64 {
    process.memory_bytes("VmRSS").expect("a running process has memory")
}

fn assert_bounded(name: &str, process: &Process, idle: u64) {
    let peak = process.memory_bytes("VmHWM").expect("a running process has memory");
    eprintln!("{name}: {} MiB when idle, {} MiB at most", idle / MIB, peak / MIB);
    assert!(peak < idle + ABOVE_IDLE, "{name} took {peak} bytes, idle {idle}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_payload_costs_little_memory() {
    let size = setting("OTA_MEMORY_PAYLOAD_MIB", 256) * MIB;
    let mut server = ServerProcess::start().await;
    let mut agent = enroll(&server, &server.url()).await;
    agent.start();
    let operator = server.admin();
    // Once through everything with next to nothing: what is loaded and set up then belongs to being idle.
    let small = make_folder(server.scratch(), MIB, 1);
    publish(&server, &small, "1.0.0").await;
    assign(&server, "1.0.0", &agent.name()).await;
    succeeded(&operator, &agent.name()).await;
    let (idle_server, idle_agent) = (resident(server.process()), resident(agent.process()));

    let large = make_folder(server.scratch(), size, 2);
    publish(&server, &large, "2.0.0").await;
    assign(&server, "2.0.0", &agent.name()).await;
    succeeded(&operator, &agent.name()).await;
    assert_bounded("ota-server", server.process(), idle_server);
    assert_bounded("ota-agent", agent.process(), idle_agent);
    assert_installed(&agent, &large);
}
