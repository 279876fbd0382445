//! What goes wrong is told in a sentence and by an exit code.

use tests::command::Waxwing;
use tests::device::eventually;
use tests::node::lead_line;
use tests::proxy::Proxy;
use tests::world::{World, setup};
use tests::{Outcome, inspect};

use crate::common::{SETTLE, failed, person, text, write};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_opened_is_told_in_a_sentence() -> Outcome<()> {
    let mut world = World::start("stores", &["a.localhost"]).await?;
    let line = world.invite(0).await?;
    let ana = Waxwing::new(&world.device_folder("ana"));
    let passphrase = ana.folder().with_extension("passphrase");
    write(&passphrase, b"the right one\n")?;
    let file = passphrase.display().to_string();
    ana.register(&line, "ana", &["--passphrase-file", &file]).await?;
    ana.run(&["whoami", "--passphrase-file", &file]).await?.done()?;
    for wrong in ["the wrong one\n", "\n"] {
        write(&passphrase, wrong.as_bytes())?;
        let error =
            failed(&ana.run(&["whoami", "--passphrase-file", &file]).await?, 1, "wrong-seal")?;
        assert!(text(&error, "hint")?.contains("--passphrase-file"), "{error}");
    }
    failed(&ana.run(&["whoami"]).await?, 1, "wrong-seal")?;
    write(&passphrase, b"the right one\n")?;
    ana.run(&["whoami", "--passphrase-file", &file]).await?.done()?;

    let bea = person(&mut world, 0, "bea").await?;
    let store = bea.folder().join("client.db");
    // What is in the journal would hide what is wrong with the file.
    inspect::fold(&store).await?;
    let sound = std::fs::read(&store)?;
    let mut torn = sound.clone();
    torn.iter_mut().skip(2_000).step_by(3).for_each(|b| *b ^= 0x5a);
    let garbage =
        b"this is no database at all, and it is long enough to be taken for one. ".repeat(200);
    for bytes in [garbage.as_slice(), &torn, b"short"] {
        write(&store, bytes)?;
        let ran = bea.run(&["whoami"]).await?;
        let error = ran.error()?;
        let (message, code) = (text(&error, "message")?, text(&error, "code")?);
        assert_eq!(ran.code, Some(70), "{error}");
        assert!(code == "damaged" || code == "corrupt", "{error}");
        for raw in ["SQLite", "sqlite", "code:", "malformed", "error returned"] {
            assert!(!message.contains(raw), "{message}");
        }
        assert!(
            message.contains("damaged") && text(&error, "hint")?.contains("waxwing link"),
            "{error}"
        );
        assert_eq!(std::fs::read(&store)?, bytes, "it was written to");
    }
    write(&store, &sound)?;
    bea.run(&["whoami"]).await?.done()?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_node_and_too_many_tries_have_their_own_exit_codes() -> Outcome<()> {
    let mut strict = setup("a.localhost")?;
    strict.settings.push(("limits.sign_ins_per_minute".to_owned(), "2".to_owned()));
    let mut world = World::start_with("codes", vec![strict, setup("b.localhost")?]).await?;
    // 4: behind the address of a line is another node than the line was made by.
    let line = world.node(1)?.invite().await?;
    let elsewhere = lead_line(&line, world.node(0)?.address()?)?;
    let stranger = Waxwing::new(&world.device_folder("stranger"));
    let password = stranger.folder().with_extension("password");
    write(&password, b"correct horse battery\n")?;
    let password = password.display().to_string();
    let register = |line| ["register", line, "--name", "bea", "--password-file", password.as_str()];
    let error = failed(&stranger.run(&register(&elsewhere)).await?, 4, "node-key")?;
    assert!(text(&error, "message")?.contains("Nothing was sent"), "{error}");

    // 4 too for a device that knows its node: whoever answers there now gets nothing.
    let hop = Proxy::start().await?;
    hop.lead_to(world.node(1)?.address()?);
    let bea = Waxwing::new(&world.device_folder("bea"));
    bea.register(&lead_line(&line, hop.address())?, "bea", &[]).await?;
    hop.lead_to(world.node(0)?.address()?);
    hop.cut();
    failed(&bea.run(&["devices"]).await?, 4, "node-key")?;
    let room = bea.run(&["room", "list"]).await?;
    assert_eq!(room.code, Some(4), "{room:?}");

    // 5: too many tries; the error says how long to wait.
    let line = world.invite(0).await?;
    Waxwing::new(&world.device_folder("ana")).register(&line, "ana", &[]).await?;
    let limited = eventually(SETTLE, "the node has enough", async || {
        let ran = stranger.run(&register(&line)).await?;
        Ok((ran.code == Some(5)).then_some(ran))
    })
    .await?;
    let error = failed(&limited, 5, "rate-limited")?;
    assert!(
        error["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0) && error["retryable"] == true
    );
    // 1: not the node's fault and not for later.
    failed(&bea.run(&["read", "nowhere", "--offline"]).await?, 1, "unknown-room")?;
    failed(
        &bea.run(&["register", &line, "--name", "ana", "--password-file", &password]).await?,
        1,
        "account-exists",
    )?;
    world.passed();
    Ok(())
}
