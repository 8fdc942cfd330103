//! What the documents show works: every command of the README's tour and of the grpcurl page, run against the real program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::processes::Setting;

/// Where scripts/tools.sh puts what it installs.
pub fn tools() -> PathBuf {
    std::env::var_os("ENTENTE_TOOLS_DIR").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/entente-tools"),
        PathBuf::from,
    )
}

fn page(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The bash blocks of a page, in order.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match &mut open {
            None if line.trim() == "```bash" => open = Some(String::new()),
            None => {}
            Some(_) if line.trim() == "```" => blocks.extend(open.take()),
            Some(block) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block of bash does not end");
    blocks
}

async fn run(blocks: Vec<String>) {
    assert!(!blocks.is_empty(), "no block of bash is there");
    let bin = tools().join("bin");
    assert!(
        bin.join("grpcurl").exists(),
        "grpcurl is missing; scripts/tools.sh installs it"
    );
    let setting = Setting::new(None);
    let args = ["--enable-test-clock"];
    let mut server = setting.serve(&args).await;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    // One shell for the page, as a reader has: what a block sets, later ones use.
    let script = blocks.join("\n");
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &script])
        .env("PATH", &path)
        .env("TARGET", format!("127.0.0.1:{}", server.grpc))
        .env("OPS", format!("http://127.0.0.1:{}", server.ops))
        .env("DATA", setting.data())
        .env("SERVER", server.id().to_string())
        .current_dir(setting.data());
    let mut done = tokio::task::spawn_blocking(move || bash.output().unwrap());
    let done = loop {
        tokio::select! {
            done = &mut done => break done.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
        // Where the page kills it, the reader starts it anew.
        if server.is_over() {
            server = setting.spawn_at([server.grpc, server.ops], &args);
        }
    };
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

/// The blocks of the README's tour.
fn first_tour() -> Vec<String> {
    let page = page("README.md");
    let (begin, end) = ("<!-- tour -->", "<!-- /tour -->");
    let tour = page
        .split_once(begin)
        .and_then(|(_, rest)| rest.split_once(end))
        .map(|(tour, _)| tour);
    blocks(tour.expect("README.md lacks the marks of its tour"))
}

// proves COM-19
#[tokio::test]
async fn tour_of_the_readme_works_as_written() {
    run(first_tour()).await;
}

// proves COM-19, NET-1, ACC-1, ACC-12, VER-1, VER-7, OFR-1, AGR-5
#[tokio::test]
async fn tour_of_accounts_goes_on_where_the_first_one_ends() {
    let mut tours = first_tour();
    tours.extend(blocks(&page("docs/tour-accounts.md")));
    run(tours).await;
}

// proves COM-19
#[tokio::test]
async fn commands_of_the_grpcurl_page_work_as_written() {
    run(blocks(&page("deploy/grpcurl.md"))).await;
}

#[test]
fn no_call_of_the_grpcurl_page_fails_unseen() {
    let script = blocks(&page("deploy/grpcurl.md")).join("\n");
    let passed_over = |line: &&str| line.contains("grpcurl ") && line.contains("||");
    let unseen: Vec<_> = script.lines().filter(passed_over).collect();
    assert!(unseen.is_empty(), "{unseen:#?}");

    // What the page compares refusals by, held against calls that are none.
    let begin = script.find("refused() {").expect("the page defines it");
    let end = script[begin..].find("\n}\n").unwrap();
    let refused = &script[begin..begin + end + 3];
    let told = |call: &str| {
        let answer = r#"ERROR:\n  Code: FailedPrecondition\n  Message: No.\n  Details:\n  1)\t{"reason":"WRONG_STATE"}\n"#;
        let script =
            format!("{refused}\nanswers() {{ printf '{answer}' >&2; return 73; }}\n{call}");
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &script]);
        bash.output().unwrap().status.success()
    };
    assert!(told("refused FAILED_PRECONDITION WRONG_STATE answers"));
    assert!(told(
        "refused 'UNAVAILABLE|FAILED_PRECONDITION' 'NOTHING|WRONG_STATE' answers"
    ));
    assert!(!told("refused NOT_FOUND WRONG_STATE answers"));
    assert!(!told("refused FAILED_PRECONDITION WRONG answers"));
    assert!(!told("refused FAILED_PRECONDITION WRONG_STATE true"));
}

#[test]
fn blocks_are_those_of_bash_and_whole() {
    let page = "a\n```bash\necho 1\necho 2\n```\n```text\nno\n```\n  ```bash\n  echo 3\n  ```\n";
    assert_eq!(blocks(page), ["echo 1\necho 2\n", "  echo 3\n"]);
}
