//! The instrument works: everything small and once, with our own node alone. What is measured means nothing here.

use std::path::PathBuf;

use bench::curve::{self, Points};
use bench::report::page;
use bench::report::results::Results;
use bench::server::Kind;
use bench::work::plan::{ECHO, INSERT, Plan, Size};

fn plan(folder: PathBuf) -> Plan {
    Plan { size: Size::QUICK, rounds: 1, kinds: vec![Kind::Waxwing], folder, keep: false }
}

fn folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(parent).expect("a temporary folder can be made")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_work_runs_on_a_node_and_nothing_is_lost() {
    let folder = folder();
    let plan = plan(folder.path().to_owned());
    let mut results = Results::default();
    for name in ["W1", "W2", "W3", "W4", "W5", "W6"] {
        let work = plan.run(name).await.unwrap();
        for system in work.systems.keys() {
            assert!(
                ["Waxwing", ECHO, INSERT].contains(&system.as_str()),
                "{system} was not asked for"
            );
        }
        results.works.insert(name.to_owned(), work);
    }
    let number = |work: &str, metric: &str| results.works[work].median("Waxwing", metric).unwrap();
    for (work, metric) in [
        ("W1", "deliveries_per_s"),
        ("W1", "content"),
        ("W2", "deliveries_per_s"),
        ("W3", "enqueue_per_s"),
        ("W3", "drain_per_s"),
        ("W4", "logins_per_s"),
        ("W5", "deliveries_per_s"),
        ("W6", "confirmed"),
    ] {
        assert!(number(work, metric) > 0.0, "{work} {metric}");
    }
    for (work, metric) in
        [("W3", "lost"), ("W3", "doubled"), ("W3", "disordered"), ("W6", "undelivered")]
    {
        assert!(number(work, metric) == 0.0, "{work} {metric}");
    }
    let page = page::write(&results).unwrap();
    assert!(page.contains("| Waxwing (1) |") && page.contains(ECHO), "{page}");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "the bench leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_curve_has_its_points() {
    let folder = folder();
    for name in curve::NAMES {
        let curve = curve::measure(name, &Points::quick(), folder.path()).await.unwrap();
        assert!(!curve.lines.is_empty(), "{name}");
        for (line, points) in &curve.lines {
            assert_eq!(points.len(), 2, "{name} {line}");
            assert!(points.iter().all(|(x, y)| *x > 0.0 && *y >= 0.0), "{name} {line}");
        }
    }
}
