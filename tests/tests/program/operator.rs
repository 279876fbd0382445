//! `waxwing-node`: its settings and where they come from, its exit codes, and what it says when it does not start.

use std::fs;

use serde_json::Value;
use tests::command::Ran;
use tests::device::eventually;
use tests::disk::SmallDisk;
use tests::node::stored;
use tests::trouble::During as _;
use tests::world::{World, setup};
use tests::{Outcome, inspect};

use crate::common::{SETTLE, fields, text};

/// It ended with this exit code and this error, and said where and what to do.
fn failed(ran: &Ran, exit: i32, code: &str) -> Outcome<Value> {
    let error = ran.error()?;
    assert_eq!((ran.code, text(&error, "code")?.as_str()), (Some(exit), code), "{error}");
    fields(&error, "code message at why retryable hint");
    for key in ["message", "at", "why", "hint"] {
        assert!(!text(&error, key)?.is_empty(), "{error}");
    }
    Ok(error)
}

const CHECK: [&str; 4] = ["-o", "json", "config", "check"];
const RUN: [&str; 3] = ["-o", "json", "run"];

#[tokio::test(flavor = "multi_thread")]
async fn flags_win_over_the_environment_and_that_over_the_file() -> Outcome<()> {
    let mut world = World::start("settings", &["a.localhost"]).await?;
    let elsewhere = world.root().join("elsewhere");
    let node = world.node(0)?;
    let file = fs::read_to_string(node.config())?;
    assert!(file.contains("address = \"0.0.0.0:8443\""), "{file}");
    // The file says 0.0.0.0:8443; the environment, which node it is in the harness.
    let own = node.run(&CHECK, &[]).await?.json()?;
    fields(&own, "ok file domain data_dir listen");
    assert_eq!(own["listen"], node.address()?.to_string());
    let given = [&CHECK[..], &["--listen", "127.0.0.1:9"]].concat();
    let flag =
        node.run(&given, &[("WAXWING_NODE_LISTEN__ADDRESS", "127.0.0.1:7")]).await?.json()?;
    assert_eq!(flag["listen"], "127.0.0.1:9");
    let environment = node.run(&CHECK, &[("WAXWING_NODE_LISTEN__ADDRESS", "127.0.0.1:7")]).await?;
    assert_eq!(environment.json()?["listen"], "127.0.0.1:7");

    // `run` follows them: a copy of the node runs beside it, on another folder and port.
    node.stop().await?;
    node.back_up(&elsewhere)?;
    node.resume().await?;
    let folder = elsewhere.display().to_string();
    let mut second = node.spawn(&["run", "--data-dir", &folder, "--listen", "127.0.0.1:0"])?;
    let address = eventually(SETTLE, "the second node's address", async || {
        Ok(stored(&elsewhere.join("address")))
    })
    .await?;
    assert_ne!(address, node.address()?);
    assert!(node.runs() && second.try_wait()?.is_none());
    second.kill().await?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_ends_with_78_and_names_the_key() -> Outcome<()> {
    let mut world = World::start("wrong-settings", &["a.localhost"]).await?;
    let node = world.node(0)?;
    node.stop().await?;
    let file = fs::read_to_string(node.config())?;
    for (text_of_file, environment, said) in [
        (format!("{file}\n[limits]\nconections = 3\n"), None, "limits.connections"),
        (file.replace("days = 30", "days = 31"), None, "retention.days"),
        (file.replace("[log]", "[log"), None, "TOML"),
        (file.clone(), Some(("WAXWING_NODE_DISK__LOW_WATER_MIB", "much")), "DISK__LOW_WATER_MIB"),
        (file.clone(), Some(("WAXWING_NODE_DISK__LOW_WATER", "1")), "`disk.low_water_mib`"),
    ] {
        fs::write(node.config(), text_of_file)?;
        let environment: Vec<_> = environment.into_iter().collect();
        for command in [&CHECK[..], &RUN] {
            let ran = node.run(command, &environment).await?;
            let error = failed(&ran, 78, "CONFIG")?;
            assert!(error.to_string().contains(said) && error["retryable"] == false, "{error}");
        }
    }
    fs::write(node.config(), &file)?;
    let gone = node.config().with_extension("gone");
    fs::rename(node.config(), &gone)?;
    let error = failed(&node.run(&RUN, &[]).await?, 78, "CONFIG")?;
    assert!(text(&error, "hint")?.contains("waxwing-node init"), "{error}");
    fs::rename(&gone, node.config())?;
    // 2: not a setting but a word that the program does not know.
    assert_eq!(node.run(&["--listen", "nowhere", "run"], &[]).await?.code, Some(2));
    assert_eq!(node.run(&["runn"], &[]).await?.code, Some(2));
    node.resume().await?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_one_folder_ends_with_75_and_other_troubles_have_codes_of_their_own()
-> Outcome<()> {
    let mut world = World::start("second", &["a.localhost"]).await?;
    let nowhere = world.root().join("nowhere").display().to_string();
    let copy = world.root().join("copy");
    let node = world.node(0)?;
    let error = failed(&node.run(&RUN, &[]).await?, 75, "RUNNING")?;
    assert!(error["retryable"] == true && text(&error, "hint")?.contains("status"), "{error}");
    assert!(node.command(&["status"]).await?.contains("listening on"));
    // 1: the folder is not that of a node.
    for command in [&CHECK[..], &["-o", "json", "status"]] {
        let given = [command, &["--data-dir", &nowhere]].concat();
        let ran = node.run(&given, &[]).await?;
        assert!(matches!(ran.code, Some(1 | 3)) && ran.error()?["hint"].is_string(), "{ran:?}");
        assert!(!std::path::Path::new(&nowhere).exists(), "it was made by looking at it");
    }
    // 3: somebody else has the port.
    node.stop().await?;
    node.back_up(&copy)?;
    node.resume().await?;
    let (folder, address) = (copy.display().to_string(), node.address()?.to_string());
    let taken = [&RUN[..], &["--data-dir", &folder, "--listen", &address]].concat();
    let error = failed(&node.run(&taken, &[]).await?, 3, "IO")?;
    assert!(text(&error, "message")?.contains(&address), "{error}");
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_a_database_of_another_version_leaves_it_alone_and_says_what_to_do()
-> Outcome<()> {
    let mut world = World::start("versions", &["a.localhost"]).await?;
    let node = world.node(0)?;
    let ran = node.run(&["-V"], &[]).await?;
    ran.done()?;
    let status = node.run(&["-o", "json", "status"], &[]).await?.json()?;
    let schema = status["schema"].as_i64().during("the schema")?;
    let (program, said) = ran.stdout.trim().split_once(", schema ").during("the schema")?;
    assert!(program.starts_with(concat!("waxwing-node ", env!("CARGO_PKG_VERSION"))), "{program}");
    assert_eq!(said, schema.to_string());

    node.stop().await?;
    for (version, hint) in [(schema - 1, "`waxwing-node run`"), (schema + 1, "newer version")] {
        inspect::set_schema(node.data(), version).await?;
        let before = fs::read(node.data().join("node.db"))?;
        for command in
            [&["config", "check"][..], &["status"], &["peer", "list"], &["invite", "create"]]
        {
            let ran = node.run(&[&["-o", "json"], command].concat(), &[]).await?;
            let error = failed(&ran, 1, "SCHEMA")?;
            assert!(text(&error, "hint")?.contains(hint), "{error}");
            assert!(fs::read(node.data().join("node.db"))? == before, "{command:?} changed it");
        }
    }
    failed(&node.run(&RUN, &[]).await?, 1, "SCHEMA")?;
    inspect::set_schema(node.data(), schema).await?;
    node.resume().await?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_on_a_full_disk_with_its_ballast_and_says_so_without() -> Outcome<()> {
    let place = tests::folder::temporary("start-full")?;
    let Some(disk) = SmallDisk::mount(&place.path().join("disk"), 128) else {
        println!("skipped: the start of a node on a full disk: only root may mount a small one");
        return Ok(());
    };
    let mut small = setup("a.localhost")?;
    small.data = Some(disk.path().join("data"));
    let mut world = World::start_with("start-full", vec![small]).await?;
    let ballast = disk.path().join("data/node.db.ballast");
    eventually(SETTLE, "the ballast", async || Ok(ballast.exists().then_some(()))).await?;
    let node = world.node(0)?;
    node.stop().await?;
    disk.brim()?;
    node.resume().await?;
    assert!(!ballast.exists(), "the disk was not full");
    assert!(node.command(&["status"]).await?.contains("listening on"));
    node.stop().await?;
    // Nobody made room, and the ballast is gone.
    disk.brim()?;
    let error = failed(&node.run(&RUN, &[]).await?, 3, "DISK-FULL")?;
    assert!(error["retryable"] == true && text(&error, "hint")?.contains("make room"), "{error}");
    disk.free()?;
    node.resume().await?;
    node.stop().await?;
    drop(disk);
    world.passed();
    Ok(())
}
