//! What can be wrong with the places that opship writes to, and what `opship check` must say to it.

use crate::disk::full_after;
use crate::doctor_cases::{Case, RIGHTS, Setup, blob, case, file, in_container, in_days, proxied, state};
use crate::world::{Kind, World, azurite, feed, history};
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, Target, What};
use opship::store::Expect;
use opship::store::checkpoints::Checkpoints;
use std::os::unix::fs::PermissionsExt;

pub fn destinations() -> Vec<Case> {
    vec![
        case(
            "the managed identity is not there",
            "FAIL identity",
            77,
            &["managed-identity", "azure.client_id"],
            file(|world| {
                let message = Some("Identity not found".into());
                world.fault(Fault::new(Target::Identity, What::Status(Refusal { message, ..Refusal::status(400) })));
            }),
        )
        .skips(&["rule", "table"]),
        case(
            "the client secret is wrong",
            "FAIL identity",
            77,
            &["AADSTS7000215", "azure.client_secret"],
            proxied(|world| {
                world.secret("not-the-secret").set("AZURE_SECRET", "not-the-secret");
            }),
        )
        .skips(&["rule", "table"]),
        case(
            "the role is missing",
            "FAIL rule",
            77,
            &["object id", "Monitoring Metrics Publisher", "data collection rule as scope", "30 minutes"],
            file(|world| {
                world.sim.world().revoke_role();
            }),
        )
        .skips(&["table"]),
        case(
            "the workspace may not be read",
            "FAIL table",
            77,
            &["OnePasswordEventLogs_CL", "Log Analytics Reader"],
            file(|world| {
                world.sim.world().revoke_reader();
            }),
        ),
        case(
            "the table is of the plan Basic, which no rule reads",
            "WARN table",
            0,
            &["another plan than Analytics", "Manage table"],
            file(|world| {
                let message =
                    "UnsupportedApiQueryValidationError: Query of Basic Logs table is not supported with the API";
                let refusal = Refusal { message: Some(message.into()), ..Refusal::status(400) };
                world.fault(Fault::new(Target::Query, What::Status(refusal)));
            }),
        ),
        case(
            "the workspace's id is wrong",
            "FAIL table",
            1,
            &["azure.workspace_id"],
            file(|world| {
                world.set("OPSHIP_AZURE__WORKSPACE_ID", "ffffffff-ffff-4fff-8fff-ffffffffffff");
            }),
        ),
        case(
            "the rule's id is wrong",
            "FAIL rule",
            64,
            &["dcr-ffff", "sink.dcr_immutable_id"],
            file(|world| {
                world.set("OPSHIP_SINK__DCR_IMMUTABLE_ID", "dcr-ffffffffffffffffffffffffffffffff");
            }),
        )
        .skips(&["table"]),
        case(
            "the stream's name is wrong",
            "FAIL rule",
            64,
            &["Custom-Nonsense_CL", "sink.stream"],
            file(|world| {
                world.set("OPSHIP_SINK__STREAM", "Custom-Nonsense_CL");
            }),
        )
        .skips(&["table"]),
    ]
}

pub fn containers() -> Vec<Case> {
    const BEHIND_STORE: &[&str] = &["state default"];
    const BEHIND_SAS: &[&str] = &["store", "state default"];
    vec![
        case(
            "the container does not exist, and the SAS cannot create it",
            "FAIL store",
            64,
            &["no container", "store.container_url"],
            async { in_container(azurite().await.container_service_sas_url("missing", RIGHTS, &in_days(400))).await },
        )
        .skips(BEHIND_STORE),
        case("the container does not exist yet", "WARN store", 0, &["the first run creates it"], async {
            in_container(azurite().await.container_sas_url(&format!("check-{}", uuid::Uuid::new_v4()))).await
        }),
        case(
            "the container's name is misspelt: the SAS is of another",
            "FAIL store",
            77,
            &["403", "store.container_url"],
            async {
                let mut url = azurite().await.container_service_sas_url("opship", RIGHTS, &in_days(400));
                url.set_path(&url.path().replace("opship", "opshp"));
                in_container(url).await
            },
        )
        .skips(BEHIND_STORE),
        case(
            "the SAS has expired",
            "FAIL store SAS",
            77,
            &["2026-01-31", "store.container_url"],
            blob(RIGHTS, "2026-01-31T12:00:00Z".into()),
        )
        .skips(BEHIND_SAS),
        case("the SAS ends in five days", "WARN store SAS", 0, &["store.container_url"], async {
            blob(RIGHTS, in_days(5)).await
        }),
        case("the SAS has no right to write", "FAIL store SAS", 77, &["write", "sp=racwdl"], async {
            blob("rl", in_days(400)).await
        })
        .skips(BEHIND_SAS),
        case(
            "the container's address has no SAS, and no identity may be used there",
            "FAIL store",
            77,
            &["https", "SAS"],
            async {
                let url = azurite().await.container_url("opship");
                file(|world| {
                    world.unset("OPSHIP_STORE__PATH").set("OPSHIP_STORE__KIND", "azure-blob");
                    world.set("OPSHIP_STORE__CONTAINER_URL", url);
                })
                .await
            },
        )
        .skips(BEHIND_STORE),
        case(
            "the variable that holds the client secret is not set",
            "FAIL secret azure.client_secret",
            64,
            &["env:AZURE_SECRET", "azure.client_secret"],
            without_secret(),
        )
        .skips(&["identity", "rule", "table", "store", "state default"]),
    ]
}

async fn without_secret() -> Setup {
    let (mut world, internet) = World::behind_a_proxy(Kind::File, history(30)).await;
    world
        .unset("AZURE_SECRET")
        .unset("OPSHIP_STORE__PATH")
        .set("OPSHIP_STORE__KIND", "azure-blob")
        .set("OPSHIP_STORE__CONTAINER_URL", "https://account.blob.core.windows.net/opship");
    Setup { _kept: Box::new(internet), ..world.into() }
}

pub fn folders() -> Vec<Case> {
    const BEHIND_STORE: &[&str] = &["state default"];
    vec![
        case(
            "the store is on a file system that takes no writes",
            "FAIL store",
            1,
            &["/sys/kernel/opship", "store"],
            file(|world| {
                world.set("OPSHIP_STORE__PATH", "/sys/kernel/opship");
            }),
        )
        .skips(BEHIND_STORE),
        case(
            "a file stands where the store should be",
            "FAIL store",
            1,
            &["it is no directory", "store.path must name a directory"],
            file(|world| {
                std::fs::write(state(world), "").unwrap();
            }),
        )
        .skips(BEHIND_STORE),
        case(
            "a device stands where the store should be",
            "FAIL store",
            1,
            &["/dev/full: it is no directory", "store.path must name a directory", "choose another path"],
            file(|world| {
                world.set("OPSHIP_STORE__PATH", "/dev/full");
            }),
        )
        .skips(BEHIND_STORE),
        case(
            "the store is where no directory can be made",
            "FAIL store",
            1,
            &["/proc/opship: it cannot be made", "no directory can be made there"],
            file(|world| {
                world.set("OPSHIP_STORE__PATH", "/proc/opship");
            }),
        )
        .skips(BEHIND_STORE),
        case(
            "a process that hangs holds the lock of the store",
            "FAIL store",
            1,
            &["process ", "has held the lock for 20 s", "end it if it is stopped or hung"],
            locked(),
        )
        .skips(BEHIND_STORE),
        case("the disk is full", "FAIL store", 1, &["free space"], full_disk()).skips(BEHIND_STORE),
        case(
            "other users may write into the store",
            "FAIL store",
            1,
            &["every user may replace or delete", "0777", "chmod the folder to 0700"],
            file(|world| {
                std::fs::create_dir(state(world)).unwrap();
                std::fs::set_permissions(state(world), std::fs::Permissions::from_mode(0o777)).unwrap();
            }),
        )
        .skips(BEHIND_STORE),
        case(
            "the store belongs to another user",
            "FAIL store",
            1,
            &["belongs to user 64932", "run opship as that user, or chown"],
            async {
                let world = World::file(history(30)).await;
                std::fs::create_dir(state(&world)).unwrap();
                std::os::unix::fs::chown(state(&world), Some(64_932), Some(64_932)).unwrap();
                let home = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(world.home.path(), home).unwrap();
                let script = "exec setpriv --reuid=64933 --regid=64933 --clear-groups \"$@\"".to_owned();
                Setup { script: Some(script), ..world.into() }
            },
        )
        .skips(BEHIND_STORE),
        case(
            "the position is that of another account",
            "FAIL state default",
            64,
            &["auditevents", "another 1Password account", "opship checkpoint adopt"],
            async {
                let world = World::file(history(30)).await;
                world.once().await.exits(0);
                let mut checkpoint = world.checkpoint(Stream::AuditEvents).await;
                checkpoint.fingerprints.account = Some("0123456789abcdef".into());
                let key = Checkpoints::key(&feed(Stream::AuditEvents));
                let bytes = checkpoint.encode().unwrap();
                world.store().await.put(&key, bytes.into(), Expect::Anything).await.unwrap();
                world
            },
        ),
        case(
            "a second entry has a token of the same account",
            "FAIL state second",
            64,
            &["accounts.default", "accounts.second", "each event would arrive twice", "remove one of the two entries"],
            async {
                let mut world = World::file(history(30)).await;
                world.once().await.exits(0);
                world.twin("second");
                world
            },
        ),
    ]
}

/// This process is the one that holds it.
async fn locked() -> Setup {
    let world = World::file(history(30)).await;
    std::fs::create_dir(state(&world)).unwrap();
    std::fs::set_permissions(state(&world), std::fs::Permissions::from_mode(0o700)).unwrap();
    let lock = std::fs::File::create(state(&world).join("~lock")).unwrap();
    lock.lock().unwrap();
    Setup { _kept: Box::new(lock), ..world.into() }
}

/// Not a byte fits into any file, so that what the program says must go through a pipe.
async fn full_disk() -> Setup {
    let world = World::file(history(30)).await;
    let script = format!("set -o pipefail; ({}) 2>&1 | cat", full_after(0).replace("exec ", ""));
    Setup { script: Some(script), ..world.into() }
}
