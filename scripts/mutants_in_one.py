#!/usr/bin/env python3
"""Mutation testing of src/access/ with one build: all mutants that cargo-mutants lists are written into a copy of the source, each behind a
switch, and the tests run with one of them switched on at a time. A build a mutant would take days; this takes hours.

    scripts/tools.sh test mutants
    scripts/mutants.sh                      # runs this with the Python that tools.sh made ready
    mutants_in_one.py [--only REGEX] [--listed FILE] [--tests REGEX] [--budget SECONDS] [--jobs N] [--keep] [--again] [--more] [--postgres]

What it does, all of it below target/mutants/:

1. `cargo mutants --list --json` names the mutants. The tree is copied, and each mutated place rewritten so that the original runs unless the
   mutant is on: `a == b` becomes `(mutant::on(17) != (a == b))`, a function begins with `if mutant::on(4) { return None; }`, a match arm
   gets a guard. Where an expression ends tree-sitter says. It is the operator of the expression that changes: what a change of the bare
   token would do to precedence isn't imitated.
2. The copy is built. What doesn't compile is dropped and counted as unviable, until all of it compiles. What stands in a constant can't be
   switched; it is listed as such (`fixed`) and left to `scripts/mutants.sh in FILE`.
3. Each test runs alone, with nothing switched on, and writes down which mutants it comes by. Tests that fail so are left out.
4. Each mutant runs with the tests that come by it, those first that killed its neighbours, then the cheapest, until one fails or takes far
   too long. Tests run on SQLite; with `--postgres` what survived runs on both databases.

Progress is in results.jsonl, and a run that was cut off goes on where it was. If the source has changed, it begins anew; `--keep` goes on all
the same, with mutants known by file, function and change: then only tests that are new run on what had survived. `--again` runs all tests on it
again. `--budget` bounds the seconds of tests a mutant; what hasn't met all its tests then is told apart from what has.

`--listed FILE` takes the mutants whose names stand in a file, one a line as in the report and in docs/testing.md (`-`: standard input), and
writes no others into the copy: fewer errors to drop, and a quicker build. Its progress is kept apart, in target/mutants/listed/. With
`--tests` only the tests that it finds are run and learnt about, so that a few likely ones go first; without it, then, the rest.

It fails if a mutant survives, or stands in a constant, that docs/testing.md doesn't explain.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import tree_sitter
import tree_sitter_rust

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "mutants"  # with --listed, a folder in it; the copy and its build stay where they are
TREE = WORK / "tree"
BUILD = WORK / "build"
EXPLAINED = ROOT / "docs" / "testing.md"

# The switch, a module of the copy alone. Children of the tests inherit the variables: the harness takes only `ENTENTE_*` from them.
SWITCH = """
//! Which mutant is on, and which ones were come by.
use std::sync::{OnceLock, atomic::{AtomicBool, Ordering}};
static ON: OnceLock<usize> = OnceLock::new();
static FILE: OnceLock<Option<std::fs::File>> = OnceLock::new();
static REACHED: [AtomicBool; COUNT] = [const { AtomicBool::new(false) }; COUNT];
/// Whether this one is on.
#[must_use]
pub fn on(number: usize) -> bool {
    let on = *ON.get_or_init(|| std::env::var("MUTANT_ON").ok().and_then(|n| n.parse().ok()).unwrap_or(0));
    if on == 0 && !REACHED[number].load(Ordering::Relaxed) && !REACHED[number].swap(true, Ordering::Relaxed) {
        let file = FILE.get_or_init(|| {
            let path = std::env::var_os("MUTANTS_REACHED")?;
            std::fs::File::options().create(true).append(true).open(path).ok()
        });
        if let Some(mut file) = file.as_ref() {
            std::io::Write::write_all(&mut file, format!("{number}\\n").as_bytes()).ok();
        }
    }
    on == number
}
"""

# What the copy's harness does otherwise: one database, and one template for all processes.
HARNESS = [
    (
        "for database in [Database::Sqlite, Database::Postgres] {",
        "for database in [Database::Sqlite, Database::Postgres] {\n"
        "        if database == Database::Postgres && std::env::var_os(\"MUTANTS_POSTGRES\").is_none() { continue; }",
    ),
    (
        "async fn sqlite_template() -> PathBuf {",
        "async fn sqlite_template() -> PathBuf {\n"
        "    let shared = std::env::var_os(\"MUTANTS_TEMPLATE\").map(PathBuf::from);\n"
        "    if let Some(shared) = &shared && shared.exists() { return shared.clone(); }\n"
        "    let made = sqlite_template_made().await;\n"
        "    if let Some(shared) = shared {\n"
        "        let part = shared.with_extension(std::process::id().to_string());\n"
        "        fs::copy(&made, &part).unwrap();\n"
        "        fs::rename(&part, &shared).unwrap();\n"
        "    }\n"
        "    made\n"
        "}\n\n"
        "async fn sqlite_template_made() -> PathBuf {",
    ),
]

# Of the tests through the server, those that take long for what they come by here, or need more than the server.
SKIPPED = (
    "benefits", "documents", "dns", "domains", "examples", "fresh::histories", "half_done", "late", "mails", "offers", "pages", "processes", "replicas",
    "synchronization::load",
)

COMPARISONS = {("==", "!="), ("!=", "=="), ("<=", ">"), (">=", "<"), ("<", ">="), (">", "<=")}


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


# ---- the mutants


class Mutant:
    """One of cargo-mutants' list. `key` knows it without its line."""

    def __init__(self, number, entry, lines):
        self.number = number
        self.name = entry["name"]
        self.file = entry["file"]
        self.genre = entry["genre"]
        self.replacement = entry["replacement"]
        self.function = (entry.get("function") or {}).get("function_name", "")
        self.text = re.sub(r"^([^:]+):\d+:\d+: ", r"\1: ", self.name)
        self.key = self.text
        self.start = offset(lines, entry["span"]["start"])
        self.end = offset(lines, entry["span"]["end"])
        self.state = "listed"
        self.why = ""

    @classmethod
    def loaded(cls, kept):
        mutant = cls.__new__(cls)
        vars(mutant).update(kept)
        return mutant


def offset(lines, place):
    """The byte at a line and column of cargo-mutants, which count characters from 1."""
    before = sum(len(line.encode()) for line in lines[: place["line"] - 1])
    return before + len(lines[place["line"] - 1][: place["column"] - 1].encode())


def listed():
    out = subprocess.run(["cargo", "mutants", "--list", "--json"], cwd=ROOT, check=True, capture_output=True).stdout
    sources, mutants, seen = {}, [], collections.Counter()
    for entry in json.loads(out):
        file = entry["file"]
        if file not in sources:
            sources[file] = (ROOT / file).read_text().splitlines(keepends=True)
        mutant = Mutant(len(mutants) + 1, entry, sources[file])
        seen[mutant.text] += 1
        if seen[mutant.text] > 1:
            mutant.key += f" #{seen[mutant.text]}"
        mutants.append(mutant)
    return mutants


# ---- writing them into the source


def ancestors(node):
    while node is not None:
        yield node
        node = node.parent


def modifiers(function):
    return next((c for c in function.children if c.type == "function_modifiers"), None)


def is_const(function):
    found = modifiers(function)
    return found is not None and any(c.type == "const" for c in found.children)


class Writer:
    """Rewrites one file with all its mutants."""

    def __init__(self, source, mutants, constant):
        self.source = source
        self.constant = constant  # names of functions that constants call
        self.edits = collections.defaultdict(list)
        self.unconst = set()
        parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language()))
        self.root = parser.parse(source).root_node
        if self.root.has_error:
            raise SystemExit("tree-sitter can't read a file")
        for mutant in mutants:
            self.place(mutant)

    def drop(self, mutant, state, why):
        mutant.state, mutant.why = state, why

    def place(self, mutant):
        # The place is a leaf, or begins with one; from there outwards.
        leaf = self.root.descendant_for_byte_range(mutant.start, mutant.start + 1)
        node = getattr(self, "find_" + mutant.genre)(mutant, leaf)
        if node is None:
            if mutant.state == "listed":
                self.drop(mutant, "unplaced", "its place wasn't found")
            return
        for above in ancestors(node):
            if above.type in ("const_item", "static_item", "enum_variant", "array_type", "const_block"):
                return self.drop(mutant, "fixed", "in a constant")
            if above.type == "function_item":
                if is_const(above):
                    name = above.child_by_field_name("name").text.decode()
                    if name in self.constant:
                        return self.drop(mutant, "fixed", "in a function that constants call")
                    self.unconst.add(modifiers(above).id)
                break
        mutant.state = "placed"
        self.edits[node.id].append(mutant)

    def find_FnValue(self, mutant, leaf):
        for node in ancestors(leaf):
            body = node.child_by_field_name("body") if node.type == "function_item" else None
            if body is not None and body.start_byte < mutant.start < body.end_byte:
                kind = node.child_by_field_name("return_type")
                if kind is not None and kind.text.startswith(b"impl ") and mutant.replacement != "::std::iter::empty()":
                    return self.drop(mutant, "unviable", "of another type than what is returned")
                return body
        return None

    def find_BinaryOperator(self, mutant, leaf):
        node = leaf.parent
        if node.type == "let_chain":
            return self.drop(mutant, "unviable", "a chain with let takes no `||`")
        if node.type in ("binary_expression", "compound_assignment_expr"):
            return node
        return None

    def find_UnaryOperator(self, mutant, leaf):
        return leaf.parent if leaf.parent.type == "unary_expression" else None

    def find_MatchArmGuard(self, mutant, leaf):
        for node in ancestors(leaf):
            if node.type == "match_pattern":
                guard = node.child_by_field_name("condition")
                if guard is not None and guard.start_byte == mutant.start:
                    binds = guard.type in ("let_condition", "let_chain")
                    if binds and mutant.replacement == "true":
                        return self.drop(mutant, "unviable", "the guard binds names")
                    return node
        return None

    def find_MatchArm(self, mutant, leaf):
        for node in ancestors(leaf):
            if node.type == "match_arm" and node.start_byte == mutant.start:
                patterns = [c.child_by_field_name("pattern") for c in node.parent.children if c.type == "match_arm"]
                if all(p.text != b"_" for p in patterns):
                    return self.drop(mutant, "unviable", "no other arm takes all of what it took")
                return node.child_by_field_name("pattern")
        return None

    def find_StructField(self, mutant, leaf):
        for node in ancestors(leaf):
            if node.type in ("field_initializer", "shorthand_field_initializer") and node.start_byte == mutant.start:
                return node
        return None

    # -- what is written

    def slice(self, start, end):
        return self.source[start:end].decode()

    def write(self, node=None):
        node = node or self.root
        if node.id in self.unconst:
            return re.sub(r"\bconst\b", "", self.slice(node.start_byte, node.end_byte))
        mutants = self.edits.get(node.id)
        if not mutants:
            return self.inner(node)
        return getattr(self, "write_" + node.type)(node, mutants)

    def inner(self, node, without=()):
        """The node, with whatever is changed within."""
        out, at = [], node.start_byte
        for child in node.children:
            out.append(self.slice(at, child.start_byte))
            out.append("" if child.id in without else self.write(child))
            at = child.end_byte
        out.append(self.slice(at, node.end_byte))
        return "".join(out)

    @staticmethod
    def marked(mutant, text):
        """So that an error of the compiler is known to be this one's."""
        return f"/*<{mutant.number}*/{text}/*{mutant.number}>*/"

    def on(self, mutant):
        return f"crate::mutant::on({mutant.number})"

    def write_block(self, node, mutants):
        body, before = self.inner(node), ""
        for mutant in mutants:
            if mutant.replacement == "::std::iter::empty()":
                body = "{ " + self.marked(mutant, f"Iterator::filter({body}, |_| !{self.on(mutant)})") + " }"
            else:
                before += self.marked(mutant, f" if {self.on(mutant)} {{ return {mutant.replacement}; }}")
        return "{" + before + body[1:]

    def write_binary_expression(self, node, mutants):
        left, right = self.write(node.child_by_field_name("left")), self.write(node.child_by_field_name("right"))
        operator = node.child_by_field_name("operator").text.decode()
        if operator in ("&&", "||"):
            (mutant,) = mutants
            on = self.on(mutant)
            if operator == "&&":
                return "(" + self.marked(mutant, f"if ({left}) != {on} {{ {right} }} else {{ {on} }}") + ")"
            return "(" + self.marked(mutant, f"if ({left}) != {on} {{ !{on} }} else {{ {right} }}") + ")"
        whole = f"{left} {operator} {right}"
        others = []
        for mutant in mutants:
            if (operator, mutant.replacement) in COMPARISONS and len(mutants) == 1:
                return "(" + self.marked(mutant, f"{self.on(mutant)} != ({whole})") + ")"
            others.append(mutant)
        return self.instead(others, whole, lambda m: f"{left} {m.replacement} {right}")

    def write_compound_assignment_expr(self, node, mutants):
        left, right = self.write(node.child_by_field_name("left")), self.write(node.child_by_field_name("right"))
        operator = node.child_by_field_name("operator").text.decode()
        return self.instead(mutants, f"{left} {operator} {right}", lambda m: f"{left} {m.replacement} {right}")

    def write_unary_expression(self, node, mutants):
        operand = self.write(node.children[-1])
        return self.instead(mutants, f"!{operand}", lambda m: operand)

    def instead(self, mutants, whole, other):
        out = "("
        for mutant in mutants:
            out += self.marked(mutant, f"if {self.on(mutant)} {{ {other(mutant)} }}") + " else "
        return out + f"{{ {whole} }})"

    def write_match_pattern(self, node, mutants):
        guard = node.child_by_field_name("condition")
        condition = self.write(guard) if guard is not None else None
        pattern = self.slice(node.start_byte, guard.start_byte) if guard is not None else self.slice(node.start_byte, node.end_byte) + " if "
        binds = guard is not None and guard.type in ("let_condition", "let_chain")
        front = ""
        for mutant in mutants:
            if mutant.replacement == "true":
                condition = self.marked(mutant, f"({self.on(mutant)} || ({condition}))")
            elif condition is None or not binds:
                condition = self.marked(mutant, f"(!{self.on(mutant)} && ({condition or 'true'}))")
            else:
                front += f"!{self.on(mutant)} && "
        return pattern + front + condition

    def write_field_initializer(self, node, mutants):
        (mutant,) = mutants
        name, value = node.child_by_field_name("field"), node.child_by_field_name("value")
        return self.field(node, mutant, name.text.decode(), self.write(value))

    def write_shorthand_field_initializer(self, node, mutants):
        (mutant,) = mutants
        name = node.text.decode()
        return self.field(node, mutant, name, name)

    def field(self, node, mutant, name, value):
        base = next(c for c in node.parent.children if c.type == "base_field_initializer")
        kind = node.parent.parent.child_by_field_name("name").text.decode()
        base = self.slice(base.start_byte + 2, base.end_byte).replace("Default::default()", f"<{kind}>::default()")
        return f"{name}: " + self.marked(mutant, f"if {self.on(mutant)} {{ ({base}).{name} }} else {{ {value} }}")


# ---- the copy and its build


def named(file):
    """The names of a list: `path: change`, or `path` alone and its changes below it, as in docs/testing.md."""
    text = sys.stdin.read() if file == "-" else pathlib.Path(file).read_text()
    names, path = [], ""
    for line in text.splitlines():
        line = re.sub(r"^(\S+\.rs):\d+:\d+: ", r"\1: ", line.strip())
        if re.fullmatch(r"\S+\.rs", line):
            path = line
        elif line:
            names.append(line if re.match(r"\S+\.rs: ", line) else f"{path}: {line}")
    return names


def only(mutants, names):
    """Those of a list, with numbers of their own."""
    there = {m.key for m in mutants}
    for name in names:
        if name not in there:
            say(f"there is no mutant any more: {name}")
    chosen = [m for m in mutants if m.key in set(names)]
    for number, mutant in enumerate(chosen, 1):
        mutant.number = number
    return chosen


def copy_tree():
    TREE.mkdir(parents=True, exist_ok=True)
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    ).stdout.decode().split("\0")
    wanted = {f for f in files if f and (ROOT / f).is_file()}
    for path in list(TREE.rglob("*")):
        if path.is_file() and str(path.relative_to(TREE)) not in wanted:
            path.unlink()
    for file in wanted:
        put(file, (ROOT / file).read_bytes(), (ROOT / file).stat().st_mode)


def put(file, content, mode=None):
    """Writes a file of the copy, if it differs: cargo goes by the time of change."""
    path = TREE / file
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if mode is not None:
        path.chmod(mode)


def replaced(text, pairs):
    for old, new in pairs:
        if old not in text:
            raise SystemExit(f"there is no '{old}' any more")
        text = text.replace(old, new)
    return text


def written(mutants, dropped, constant):
    """What each file becomes with its mutants; says of each mutant what became of it."""
    by_file = collections.defaultdict(list)
    for mutant in mutants:
        if mutant.key in dropped:
            mutant.state, mutant.why = "unviable", dropped[mutant.key]
        else:
            mutant.state = "listed"
            by_file[mutant.file].append(mutant)
    return {file: Writer((ROOT / file).read_bytes(), of_file, constant).write().encode() for file, of_file in by_file.items()}


def write_copy(mutants, files):
    """Writes the changed files, the switch, and what the copy does otherwise."""
    for file, content in files.items():
        put(file, content)
    put("src/mutant.rs", SWITCH.replace("COUNT", str(len(mutants) + 1)).encode())
    library = (ROOT / "src/lib.rs").read_text().replace("pub mod access;", "pub mod access;\npub mod mutant;")
    put("src/lib.rs", library.encode())
    harness = (ROOT / "tests/it/harness.rs").read_text()
    put("tests/it/harness.rs", replaced(harness, HARNESS).encode())


def seed():
    """Takes over the dependencies that were built already, by hard links: cargo never changes those of packages that aren't ours."""
    if BUILD.exists() or not (ROOT / "target/debug/deps").is_dir():
        return
    (BUILD / "debug").mkdir(parents=True)
    for folder in ("deps", "build", ".fingerprint"):
        shutil.copytree(ROOT / "target/debug" / folder, BUILD / "debug" / folder, copy_function=os.link, symlinks=True)


def cargo(*args):
    """Runs cargo on the copy; gives whether it went well, and its messages."""
    prefix = os.environ.get("MUTANTS_CARGO", "cargo").split()
    environment = dict(os.environ, CARGO_TARGET_DIR=str(BUILD), CARGO_INCREMENTAL="0")
    done = subprocess.run(
        [*prefix, *args, "--locked", "--message-format=json"], cwd=TREE, env=environment, stdout=subprocess.PIPE, check=False
    )
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
    return done.returncode == 0, messages


def blamed(message, ranges):
    """The mutants that an error of the compiler speaks of: the innermost at each of its places."""
    for primary in (True, False):
        found = set()
        for span in message["spans"]:
            if span["is_primary"] != primary:
                continue
            around = [
                (end - start, number)
                for number, start, end in ranges.get(span["file_name"], [])
                if start <= span["byte_start"] and span["byte_end"] <= end
            ]
            if around:
                found.add(min(around)[1])
        if found:
            return found
    return set()


def build(mutants, state):
    """Builds the copy, dropping what doesn't compile."""
    dropped, constant = state.setdefault("unviable", {}), set(state.setdefault("constant", []))
    by_number = {m.number: m for m in mutants}
    for round_ in range(1, 20):
        files = written(mutants, dropped, constant)
        write_copy(mutants, files)
        ranges = {}
        for file, text in files.items():
            starts = [(int(m[1]), m.start()) for m in re.finditer(rb"/\*<(\d+)\*/", text)]
            # What is written twice, since it stands within a changed operand, has several places.
            ranges[file] = []
            for number, start in starts:
                end = text.index(b"/*%d>*/" % number, start)
                ranges[file].append((number, start, end))
        say(f"build {round_}: {sum(m.state == 'placed' for m in mutants)} mutants in place")
        # The first one has errors, so the library alone is enough for it.
        first = round_ == 1 and not dropped
        good, messages = cargo("build", "--lib") if first else cargo("test", "--no-run", "--lib", "--test", "it")
        if good and not first:
            break
        progress = False
        for entry in messages:
            message = entry.get("message") if entry.get("reason") == "compiler-message" else None
            if not message or message["level"] != "error" or not message["spans"]:
                continue
            if entry["target"]["kind"] != ["lib"]:
                print(message["rendered"], file=sys.stderr)
                continue
            numbers = blamed(message, ranges)
            for number in numbers:
                progress |= dropped.setdefault(by_number[number].key, message["message"]) == message["message"]
            called = re.search(r"cannot call non-const (?:\w+ )*`(?:.*::)?(\w+)(?:<.*>)?`", message["message"])
            if called and called[1] not in constant:
                constant.add(called[1])
                progress = True
            elif not numbers and not called:
                print(message["rendered"], file=sys.stderr)
        state["constant"] = sorted(constant)
        save_state(state)
        if not progress and not good:
            raise SystemExit("the copy doesn't build, and no mutant is to blame")
    programs = {}
    for entry in messages:
        if entry.get("reason") == "compiler-artifact" and entry.get("executable") and entry["profile"]["test"]:
            programs["it" if "test" in entry["target"]["kind"] else "lib"] = entry["executable"]
    return programs


# ---- running tests


class Runner:
    """Runs tests of the copy, each process with temporary files of its own."""

    def __init__(self, programs, temporary):
        self.programs = programs
        self.temporary = pathlib.Path(temporary)
        self.template = self.temporary / "template.db"

    def list(self, kind, filters):
        out = subprocess.run([self.programs[kind], "--list", "--format=terse", *filters], cwd=TREE, check=True, capture_output=True)
        return [line[: -len(": test")] for line in out.stdout.decode().splitlines() if line.endswith(": test")]

    def run(self, kind, tests, limit, variables):
        """Runs tests; gives `passed`, or the one that failed, or `time` if they took longer than the limit, and the seconds."""
        folder = tempfile.mkdtemp(dir=self.temporary)
        os.chmod(folder, 0o755)
        environment = dict(os.environ, TMPDIR=folder, MUTANTS_TEMPLATE=str(self.template), RUST_BACKTRACE="0", **variables)
        environment.setdefault("ENTENTE_MODEL_SEQUENCES", "80")
        begun = time.monotonic()
        command = ["nice", "-n", "5", self.programs[kind], "--exact", *tests, "--test-threads=1"]
        process = subprocess.Popen(
            command, cwd=TREE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
            start_new_session=True, text=True, errors="replace",
        )
        late = threading.Event()

        def end():
            late.set()
            kill(process)

        timer = threading.Timer(limit, end)
        timer.start()
        outcome = None
        try:
            for line in process.stdout:
                failed = re.match(r"test (\S+)(?: - should panic)? \.\.\. FAILED", line)
                if failed:
                    outcome = failed[1]
                    break
        finally:
            timer.cancel()
            kill(process)
            process.stdout.close()
            code = process.wait()
            shutil.rmtree(folder, ignore_errors=True)
        if outcome is None:
            outcome = "time" if late.is_set() else "passed" if code == 0 else "the process"
        return outcome, time.monotonic() - begun


def kill(process):
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def reach(runner, tests, known, mutants, jobs):
    """Which mutants each test comes by, and what it takes; what is known already stays."""
    keys = {m.number: m.key for m in mutants}
    missing = [t for t in tests if t not in known]
    say(f"reach: {len(missing)} tests of {len(tests)}")

    def one(test):
        kind, name = test.split(" ", 1)
        with tempfile.NamedTemporaryFile(dir=runner.temporary) as file:
            os.chmod(file.name, 0o666)
            outcome, seconds = runner.run(kind, [name], 900, {"MUTANTS_REACHED": file.name})
            numbers = {int(n) for n in pathlib.Path(file.name).read_text().split()}
        return test, {"outcome": outcome, "seconds": round(seconds, 3), "mutants": sorted(keys[n] for n in numbers)}

    done = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for future in concurrent.futures.as_completed([pool.submit(one, t) for t in missing]):
            test, found = future.result()
            known[test] = found
            done += 1
            if found["outcome"] != "passed":
                say(f"without mutants fails: {test}: {found['outcome']}")
            if done % 20 == 0:
                save(WORK / "reach.json", known)
    save(WORK / "reach.json", known)


class Trial:
    """Tries mutants, and keeps what came of it."""

    def __init__(self, runner, known, mutants, results, options):
        self.runner, self.known, self.results, self.options = runner, known, results, options
        self.reaching = collections.defaultdict(list)
        self.seen = collections.defaultdict(collections.Counter)
        functions = {m.key: m.file + m.function for m in mutants}
        for test, found in known.items():
            if found["outcome"] == "passed" and found.get("here", True):
                for key in found["mutants"]:
                    self.reaching[key].append(test)
                    self.seen[functions.get(key)][test] += 1
        self.lock = threading.Lock()
        self.killers = collections.defaultdict(collections.Counter)
        for result in results.values():
            self.count(result)

    def count(self, result):
        if result["outcome"] == "killed" and result.get("by") in self.known:
            self.killers[result["function"]][result["by"]] += 1
            self.killers[result["file"]][result["by"]] += 1

    def ordered(self, mutant, tests):
        """First those that killed its neighbours; then those that see most of its function, and are quick."""
        where = mutant.file + mutant.function
        killed, seen, of_file = self.killers[where], self.seen[where], self.killers[mutant.file]
        return sorted(tests, key=lambda t: (-killed[t], -(seen[t] + of_file[t]) / (0.5 + self.known[t]["seconds"])))

    def groups(self, mutant, tests):
        """The tests in portions: those of the library at once, then few that are likely, then more."""
        library = [t for t in tests if t.startswith("lib ")]
        if library:
            yield library
        rest = self.ordered(mutant, [t for t in tests if not t.startswith("lib ")])
        size, bound = 2, 6
        while rest:
            group = [rest.pop(0)]
            while rest and len(group) < size and sum(self.known[t]["seconds"] for t in [*group, rest[0]]) < bound:
                group.append(rest.pop(0))
            yield group
            size, bound = size * 2, bound * 2

    def one(self, mutant):
        before = self.results.get(mutant.key, {})
        met = set() if self.options.again else set(before.get("met", []))
        tests = [t for t in self.reaching[mutant.key] if t not in met and re.search(self.options.tests, t)]
        variables = {"MUTANT_ON": str(mutant.number)}
        if self.options.postgres:
            variables["MUTANTS_POSTGRES"] = "1"
        outcome, by, spent = "survived", None, 0.0
        for group in self.groups(mutant, tests):
            expected = sum(self.known[t]["seconds"] for t in group)
            if spent and self.options.budget and spent + expected > self.options.budget:
                outcome = "unfinished"
                break
            limit = 30 + (4 + 8 * self.options.postgres) * expected
            kind = group[0].split(" ", 1)[0]
            found, seconds = self.runner.run(kind, [t.split(" ", 1)[1] for t in group], limit, variables)
            spent += seconds
            if found != "passed":
                outcome, by = "killed", f"{kind} {found}"
                break
            met.update(group)
        if not self.reaching[mutant.key]:
            outcome = "unreached"
        elif outcome == "survived" and set(self.reaching[mutant.key]) - met:
            outcome = "unfinished"
        return {
            "key": mutant.key, "name": mutant.name, "file": mutant.file, "function": mutant.file + mutant.function,
            "outcome": outcome, "by": by, "seconds": round(spent, 1),
            "met": sorted(met) if outcome != "killed" else [], "of": len(self.reaching[mutant.key]),
        }

    def all(self, mutants):
        say(f"to try: {len(mutants)}")
        done = 0
        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool, open(WORK / "results.jsonl", "a") as log:
            for future in concurrent.futures.as_completed([pool.submit(self.one, m) for m in mutants]):
                result = future.result()
                with self.lock:
                    self.results[result["key"]] = result
                    self.count(result)
                    log.write(json.dumps(result) + "\n")
                    log.flush()
                done += 1
                if result["outcome"] != "killed":
                    say(f"{done}: {result['outcome']} ({len(result['met'])} of {result['of']} tests): {result['name']}")
                elif done % 25 == 0:
                    say(f"{done} of {len(mutants)}")


# ---- keeping


def save(path, what):
    part = path.with_suffix(".part")
    part.write_text(json.dumps(what, indent=0))
    part.rename(path)


def load(path):
    return json.loads(path.read_text()) if path.exists() else {}


def save_state(state):
    save(WORK / "state.json", state)


def stamp(names):
    """What the source is, and the list. A test that is new or changed makes a new name or none."""
    sum_ = hashlib.sha256("\n".join(sorted(names or [])).encode())
    for path in sorted((ROOT / "src").rglob("*.rs")):
        sum_.update(path.read_bytes())
    return sum_.hexdigest()


def filters():
    """Which of the tests through the server: what `.cargo/mutants.toml` gives to them."""
    text = (ROOT / ".cargo/mutants.toml").read_text()
    words = re.findall(r'"([^"]*)"', re.search(r"additional_cargo_test_args = \[(.*?)\]", text, re.S)[1])
    return words[words.index("--") + 1 :]


def report(mutants, results):
    """Says what came of all; gives the survivors that nobody explained."""
    # In a table a bar is written with a backslash before it. Of equal changes in one function the second is `.. #2`.
    explained = EXPLAINED.read_text().replace("\\|", "|")
    outcomes, open_ = collections.Counter(), []
    lines = []
    for mutant in mutants:
        if mutant.state != "placed":
            outcome = mutant.state
        else:
            outcome = results.get(mutant.key, {}).get("outcome", "untried")
        if outcome not in ("killed", "unviable") and f"`{mutant.key}`" in explained:
            outcome = "explained"
        outcomes[outcome] += 1
        lines.append(f"{outcome}\t{mutant.name}\t{mutant.why or results.get(mutant.key, {}).get('by') or ''}")
        if outcome in ("survived", "unreached", "unfinished", "unplaced", "fixed"):
            open_.append(f"{outcome}, and not explained: {mutant.key} (line {mutant.name.split(':')[1]})")
    (WORK / "report.txt").write_text("\n".join(lines) + "\n")
    say(", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common()) + f": {WORK / 'report.txt'}")
    return open_


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="only mutants whose name this regular expression finds")
    parser.add_argument("--listed", metavar="FILE", help="only mutants whose names stand in this file")
    parser.add_argument("--tests", default="", help="only with tests whose name this regular expression finds, also those mostly skipped")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes at a time")
    parser.add_argument("--budget", type=float, default=0, help="seconds of tests a mutant; 0 is no bound")
    parser.add_argument("--keep", action="store_true", help="keep what is known, though the source has changed")
    parser.add_argument("--again", action="store_true", help="run all tests again on what survived")
    parser.add_argument("--postgres", action="store_true", help="run what survived on both databases")
    parser.add_argument("--more", action="store_true", help="with nearly all tests through the server, not only those of .cargo/mutants.toml")
    parser.add_argument("--built", action="store_true", help="use what was built last, whatever has changed")
    parser.add_argument("--build-only", action="store_true", help="stop after the build")
    options = parser.parse_args()
    # What survived has met its tests on SQLite.
    options.again |= options.postgres
    names = None
    if options.listed:
        global WORK
        WORK, names = WORK / "listed", named(options.listed)
    WORK.mkdir(parents=True, exist_ok=True)

    state, now = load(WORK / "state.json"), stamp(names)
    if state.get("stamp") != now and not (options.keep or options.built):
        for name in ("state.json", "reach.json", "results.jsonl"):
            if (WORK / name).exists():
                (WORK / name).rename(WORK / f"{name}.old")
        state = {}
    state["stamp"] = now
    save_state(state)

    if options.built:
        mutants = [Mutant.loaded(kept) for kept in load(WORK / "list.json")]
    else:
        mutants = listed() if names is None else only(listed(), names)
        copy_tree()
        seed()
        state["programs"] = build(mutants, state)
        save(WORK / "list.json", [vars(m) for m in mutants])
    programs = state["programs"]
    save_state(state)
    say(", ".join(f"{c} {s}" for s, c in collections.Counter(m.state for m in mutants).items()))
    if options.build_only:
        return 0

    known = load(WORK / "reach.json")
    results = {}
    if (WORK / "results.jsonl").exists():
        for line in (WORK / "results.jsonl").read_text().splitlines():
            result = json.loads(line)
            results[result["key"]] = result
    with tempfile.TemporaryDirectory(prefix="entente-mutants-") as temporary:
        os.chmod(temporary, 0o755)
        runner = Runner(programs, temporary)
        few = runner.list("it", filters())
        skipped = () if options.tests else SKIPPED
        more = [t for t in runner.list("it", []) if t not in few and not t.startswith(skipped)] if options.more else []
        tests = [f"lib {t}" for t in runner.list("lib", [])] + [f"it {t}" for t in few + more]
        # The first one makes the template that the others copy.
        runner.run("it", [tests[-1].split(" ", 1)[1]], 600, {})
        reach(runner, [t for t in tests if re.search(options.tests, t)], known, mutants, options.jobs)
        known = {t: known[t] for t in tests if t in known}
        chosen = [m for m in mutants if m.state == "placed" and re.search(options.only or "", m.name)]
        trial = Trial(runner, known, mutants, results, options)
        open_ = [m for m in chosen if options.again or m.key not in results or set(trial.reaching[m.key]) - set(results[m.key]["met"])]
        trial.all([m for m in open_ if results.get(m.key, {}).get("outcome") != "killed"])
    unexplained = report(mutants, results)
    print("\n".join(unexplained))
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
