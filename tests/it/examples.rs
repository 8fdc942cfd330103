//! The clients of `examples/` do the README's tour, and enrol a company, against the real program, with stubs generated from the protos as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{processes::Setting, tour::tools};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An example, ready to run, in a copy of its own.
fn ready(language: &str) -> PathBuf {
    let made = Command::new(root().join("scripts/examples.sh"))
        .arg(language)
        .output()
        .unwrap();
    let [out, err] = [&made.stdout, &made.stderr].map(|s| String::from_utf8_lossy(s));
    assert!(made.status.success(), "{err}");
    PathBuf::from(out.trim())
}

/// The titles of the steps in an example's sources, in order.
fn titles(sources: &[&str], begin: &str) -> Vec<String> {
    let mut titles = Vec::new();
    for source in sources {
        let source = fs::read_to_string(root().join("examples").join(source)).unwrap();
        let lines = source.lines().filter_map(|l| l.trim().strip_prefix(begin));
        titles.extend(lines.map(|l| l.split('"').next().unwrap().to_owned()));
    }
    titles
}

fn titles_in_python() -> Vec<String> {
    let sources = [
        "python/accounts.py",
        "python/directory.py",
        "python/enrolment.py",
    ];
    titles(&sources, "@step(\"")
}

fn titles_in_go() -> Vec<String> {
    titles(&["go/main.go"], "{\"")
}

/// Runs the tour; gives the titles of the steps that it did.
async fn tour(folder: PathBuf, mut program: Command) -> Vec<String> {
    let setting = Setting::new(None);
    let server = setting.serve(&[]).await;
    program
        .current_dir(folder)
        .env("TARGET", format!("127.0.0.1:{}", server.grpc))
        .env("DATA", setting.data());
    let done = tokio::task::spawn_blocking(move || program.output().unwrap())
        .await
        .unwrap();
    let [out, err] = [&done.stdout, &done.stderr].map(|s| String::from_utf8_lossy(s));
    assert_eq!(done.status.code(), Some(0), "{out}{err}");
    out.lines()
        .filter_map(|l| l.strip_prefix("== "))
        .map(str::to_owned)
        .collect()
}

// proves COM-3, COM-4, COM-16, COM-17
#[tokio::test]
async fn python_client_does_the_tour() {
    let folder = tokio::task::spawn_blocking(|| ready("python"))
        .await
        .unwrap();
    // The messages of google/ are those that the runtime has.
    assert!(folder.join("entente").is_dir() && !folder.join("google").exists());
    let mut program = Command::new(tools().join("python/bin/python"));
    program.arg("tour.py");
    let did = tour(folder, program).await;
    assert_eq!(did, titles_in_python());
}

// proves COM-3, COM-4, COM-16, COM-17
#[tokio::test]
async fn go_client_does_the_tour() {
    let folder = tokio::task::spawn_blocking(|| ready("go")).await.unwrap();
    let made: Vec<_> = fs::read_dir(folder.join("gen"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(made, ["entente"], "the messages of google/ are genproto's");
    let program = Command::new(folder.join("go-tour"));
    let did = tour(folder, program).await;
    assert_eq!(did, titles_in_go());
}

#[test]
fn examples_of_all_languages_show_the_same() {
    let python = titles_in_python();
    assert!(python.len() > 10, "{python:?}");
    assert_eq!(python, titles_in_go());
}
