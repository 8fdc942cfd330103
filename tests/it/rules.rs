//! The rules and the tests, held together: what is marked as built is proven, and nothing is proven that isn't a rule.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// How far a rule is built.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    Built,
    Partly(String),
    Not,
}

impl Mark {
    /// `built`, `not`, or `partly: what is missing`.
    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "built" => Some(Self::Built),
            "not" => Some(Self::Not),
            other => {
                let missing = other.strip_prefix("partly:")?.trim();
                (!missing.is_empty()).then(|| Self::Partly(missing.to_owned()))
            }
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Whether a text is the ID of a rule, such as `USR-4`.
fn is_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(area, number)| {
        area.len() == 3
            && area.bytes().all(|b| b.is_ascii_uppercase())
            && !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

/// `- **ROL-1** [built] text`: the ID, and what stands in brackets.
fn rule_line(line: &str) -> Option<(&str, Option<&str>)> {
    let (id, rest) = line.trim_start().strip_prefix("- **")?.split_once("**")?;
    if !is_id(id) {
        return None;
    }
    let mark = rest
        .trim_start()
        .strip_prefix('[')
        .and_then(|r| r.split_once(']'))
        .map(|(mark, _)| mark);
    Some((id, mark))
}

/// All rules with their marks; what lacks one goes to the faults.
fn rules(faults: &mut Vec<String>) -> BTreeMap<String, Option<Mark>> {
    let mut rules = BTreeMap::new();
    let mut files: Vec<_> = fs::read_dir(root().join("docs/rules"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .collect();
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let place = file.file_name().unwrap().to_string_lossy().into_owned();
        let mut add = |id: &str, mark: Option<&str>| {
            let parsed = mark.and_then(Mark::parse);
            if parsed.is_none() {
                faults.push(format!(
                    "{place}: {id} has no mark, or a wrong one: {mark:?}"
                ));
            }
            if rules.insert(id.to_owned(), parsed).is_some() {
                faults.push(format!("{place}: {id} stands twice"));
            }
        };
        // In a table of rules: the column that says the state of each.
        let mut state: Option<Option<usize>> = None;
        for line in text.lines() {
            if let Some((id, mark)) = rule_line(line) {
                add(id, mark);
                continue;
            }
            if !line.starts_with('|') {
                state = None;
                continue;
            }
            let cells: Vec<_> = line
                .trim()
                .trim_matches('|')
                .split('|')
                .map(str::trim)
                .collect();
            if cells[0] == "ID" {
                state = Some(cells.iter().position(|c| *c == "state"));
                continue;
            }
            let id = cells[0].trim_matches('*');
            if let Some(at) = state
                && is_id(id)
            {
                let mark = at.and_then(|at| cells.get(at));
                add(id, mark.map(|c| c.trim_matches(['[', ']'])));
            }
        }
    }
    rules
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Rules named by `// proves` above tests, and where.
fn proven() -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    for folder in ["tests", "src"] {
        sources(&root().join(folder), &mut files);
    }
    let mut proven: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let lists = text
            .lines()
            .filter_map(|l| l.trim_start().strip_prefix("// proves "));
        for id in lists.flat_map(|l| l.split(',')) {
            let id = id.trim().trim_end_matches('.');
            let place = file.strip_prefix(root()).unwrap().display().to_string();
            proven.entry(id.to_owned()).or_default().insert(place);
        }
    }
    proven
}

#[test]
fn rules_that_are_built_are_proven_and_what_is_proven_is_a_rule() {
    let mut faults = Vec::new();
    let rules = rules(&mut faults);
    let proven = proven();
    assert!(rules.len() > 100, "only {} rules were found", rules.len());
    for (id, mark) in &rules {
        let claims = matches!(mark, Some(Mark::Built | Mark::Partly(_)));
        if claims && !proven.contains_key(id) {
            faults.push(format!("{id} is marked {mark:?}, and no test proves it"));
        }
    }
    for (id, places) in &proven {
        if !rules.contains_key(id) {
            faults.push(format!("{id}, proven in {places:?}, is no rule"));
        }
    }
    assert!(faults.is_empty(), "\n  {}\n", faults.join("\n  "));
}

#[test]
fn marks_are_read_as_written() {
    let line = "- **ROL-5** [partly: groups] Custom permissions: a member [..]";
    assert_eq!(rule_line(line), Some(("ROL-5", Some("partly: groups"))));
    assert_eq!(rule_line("- **ROL-5** Custom [x]"), Some(("ROL-5", None)));
    assert_eq!(rule_line("- **Note** text"), None);
    assert_eq!(
        Mark::parse("partly: groups"),
        Some(Mark::Partly("groups".to_owned()))
    );
    assert_eq!(Mark::parse("partly"), None);
    assert_eq!(Mark::parse("built"), Some(Mark::Built));
}
