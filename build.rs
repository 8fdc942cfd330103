//! Compiles the protos, checks that every method and field is declared as the kernel needs it, and generates from the descriptors:
//! messages and clients (prost, tonic), the checks of every request field, and one adapter a method (`calls.rs`).
//!
//! A method without an access rule, or a request field without limits, fails the build; all of them are named.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, Value,
};

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Anyhow<()> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut files = Vec::new();
    find(Path::new("proto"), &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(&files)?;
    let bytes = compiler.encode_file_descriptor_set();
    fs::write(out.join("entente.bin"), &bytes)?;

    let pool = DescriptorPool::decode(bytes.as_slice())?;
    let generator = Generator::new(&pool)?;
    let (code, secret_bearing) = generator.run()?;
    fs::write(out.join("calls.rs"), code)?;

    let mut prost = prost_build::Config::new();
    // Messages that carry secrets get a Debug of ours, which shows nothing (see `calls.rs`).
    prost.skip_debug(secret_bearing);
    prost.include_file("protos.rs");
    // So that `Any::to_msg` knows a domain event's payload by its type.
    prost.enable_type_names();
    tonic_prost_build::configure()
        .build_server(false)
        .build_client(true)
        .compile_fds_with_config(compiler.file_descriptor_set(), prost)?;
    Ok(())
}

fn find(dir: &Path, into: &mut Vec<PathBuf>) -> Anyhow<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, into)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            into.push(path);
        }
    }
    Ok(())
}

struct Generator<'a> {
    pool: &'a DescriptorPool,
    rule: ExtensionDescriptor,
    takes: ExtensionDescriptor,
    behavior: ExtensionDescriptor,
    reference: ExtensionDescriptor,
    resource: ExtensionDescriptor,
    /// Resource type -> the scope that its pattern begins with; several patterns give several scopes.
    scopes_of_types: BTreeMap<String, BTreeSet<&'static str>>,
    faults: RefCell<Vec<String>>,
    /// Request -> the function that checks it beyond its declared limits.
    checks: RefCell<BTreeMap<String, String>>,
    /// Whether the request looked at updates the resource in it: then the resource's name counts, else it is ignored.
    updating: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq)]
enum Behavior {
    Required = 2,
    OutputOnly = 3,
    InputOnly = 4,
    Immutable = 5,
    Identifier = 8,
}

impl<'a> Generator<'a> {
    fn new(pool: &'a DescriptorPool) -> Anyhow<Self> {
        let ext = |name: &str| {
            pool.get_extension_by_name(name)
                .ok_or_else(|| format!("no extension {name} in the protos"))
        };
        let mut this = Self {
            pool,
            rule: ext("entente.access.v1.rule")?,
            takes: ext("entente.access.v1.takes")?,
            behavior: ext("google.api.field_behavior")?,
            reference: ext("google.api.resource_reference")?,
            resource: ext("google.api.resource")?,
            scopes_of_types: BTreeMap::new(),
            faults: RefCell::default(),
            checks: RefCell::default(),
            updating: Cell::new(false),
        };
        for message in pool.all_messages() {
            if let Some((kind, patterns)) = this.resource_of(&message) {
                let scopes = patterns.iter().map(|p| scope_of_pattern(p)).collect();
                this.scopes_of_types.insert(kind, scopes);
            }
        }
        Ok(this)
    }

    fn fault(&self, text: String) {
        self.faults.borrow_mut().push(text);
    }

    fn run(&self) -> Anyhow<(String, Vec<String>)> {
        let mut code = String::new();
        let mut arms = String::new();
        let mut requests = BTreeMap::new();
        let mut responses = BTreeMap::new();
        for service in self.pool.services() {
            if !service.full_name().starts_with("entente.") {
                continue;
            }
            for method in service.methods() {
                requests.insert(method.input().full_name().to_owned(), method.input());
                responses.insert(method.output().full_name().to_owned(), method.output());
                self.arm(&method, &mut arms);
            }
        }
        let mut reachable = BTreeMap::new();
        for message in requests.values() {
            reach(message, &mut reachable, &|field| {
                !self.behaves(field, Behavior::OutputOnly)
            });
        }
        for message in reachable.values() {
            self.check_impl(message, &mut code);
        }
        for (name, request) in &requests {
            self.fields_impl(name, request, &mut code);
            self.list_impl(name, request, &mut code);
        }
        let mut answered = BTreeMap::new();
        for message in responses.values() {
            reach(message, &mut answered, &|_| true);
        }
        for message in answered.values() {
            self.redact_impl(message, &mut code);
            if self.resource_of(message).is_some() {
                self.resource_impl(message, &mut code);
            }
        }
        let mut secret_bearing = Vec::new();
        let all: BTreeMap<_, _> = reachable.into_iter().chain(answered).collect();
        for (name, message) in &all {
            if self.bears_secret(message) {
                let _ = writeln!(
                    code,
                    "impl std::fmt::Debug for {} {{ fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{ f.write_str(\"{}(withheld)\") }} }}",
                    path_of(message),
                    message.name()
                );
                secret_bearing.push(format!(".{name}"));
            }
        }
        let _ = write!(
            code,
            "/// Carries out the call of `path`; None if there is no such method.\n\
             pub async fn dispatch(app: crate::app::App, path: &str, request: http::Request<tonic::body::Body>) -> Option<http::Response<tonic::body::Body>> {{\n\
             use crate::call::*;\n\
             Some(match path {{\n{arms}_ => return None,\n}})\n}}\n"
        );
        let faults = self.faults.take();
        if !faults.is_empty() {
            return Err(
                format!("the protos lack declarations:\n  {}\n", faults.join("\n  ")).into(),
            );
        }
        Ok((code, secret_bearing))
    }

    // ---- rules and adapters

    fn arm(&self, method: &MethodDescriptor, arms: &mut String) {
        let full = format!("{}/{}", method.parent_service().full_name(), method.name());
        let options = method.options();
        if !options.has_extension(&self.rule) {
            self.fault(format!(
                "{full}: no access rule (option entente.access.v1.rule)"
            ));
            return;
        }
        let rule = message(options.get_extension(&self.rule).as_ref());
        let kind = rule
            .get_field_by_name("kind")
            .and_then(|v| v.as_enum_number())
            .unwrap_or(0);
        let alternatives = list(&rule, "any_of");
        if kind == 0 {
            self.fault(format!("{full}: its rule has no kind"));
        }
        if alternatives.is_empty() {
            self.fault(format!("{full}: its rule has no alternative"));
        }
        let mut declared: BTreeSet<String> = list(&rule, "unprivileged")
            .iter()
            .map(|u| text(u, "field"))
            .collect();
        self.updating
            .set(is_update_request(method.input().full_name()));
        let mut shapes = BTreeSet::new();
        for alternative in &alternatives {
            let token = self.token_of(alternative);
            if let Some((link, field)) = &token {
                shapes.insert("token");
                let known = method
                    .input()
                    .get_field_by_name(field)
                    .is_some_and(|f| matches!(f.kind(), Kind::String) && self.is_secret(&f));
                if *link == 0 || !known {
                    self.fault(format!(
                        "{full}: its token needs a kind, and a field of the request that is declared secret"
                    ));
                }
            } else if flag(alternative, "public") {
                shapes.insert("nobody");
            } else if flag(alternative, "signed_in") || !text(alternative, "self").is_empty() {
                shapes.insert("caller");
                declared.insert(text(alternative, "self"));
            } else {
                let pairs = list(alternative, "all_of");
                let lent_by = text(alternative, "lent_by");
                if !lent_by.is_empty() {
                    let lends = self.scope_of_field(&method.input(), &lent_by);
                    let borrows = |at: &str| {
                        let scopes = self.scope_of_field(&method.input(), at);
                        scopes.is_some_and(|s| s.len() == 1 && s.contains("tenant"))
                    };
                    if lends.is_none_or(|s| s.len() != 1 || !s.contains("account"))
                        || !pairs.iter().all(|pair| borrows(&text(pair, "at")))
                    {
                        self.fault(format!(
                            "{full}: what is lent is a tenant's, by a field that names a relationship ({lent_by})"
                        ));
                    }
                    declared.insert(lent_by);
                }
                if pairs.is_empty() {
                    self.fault(format!("{full}: an alternative demands nothing"));
                }
                for pair in &pairs {
                    let at = text(pair, "at");
                    declared.insert(at.clone());
                    if at == "@operator" {
                        shapes.insert("operator");
                        continue;
                    }
                    match self.scope_of_field(&method.input(), &at) {
                        Some(scopes) if scopes.len() == 1 => {
                            // A field that is a list may be empty, so it proves nothing by itself.
                            if at.contains('.')
                                && self.is_repeated(&method.input(), &at)
                                && pairs.len() > 1
                            {
                                continue;
                            }
                            shapes.extend(scopes);
                        }
                        Some(_) => {
                            shapes.insert("proof");
                        }
                        None => self.fault(format!(
                            "{full}: its rule names {at}, which is no resource name in the request"
                        )),
                    }
                }
            }
        }
        for (path, _) in self.names_in(&method.input(), "", 0) {
            if !declared.contains(&path) {
                self.fault(format!(
                    "{full}: the resource name {path} is neither in the rule nor declared unprivileged"
                ));
            }
        }
        self.account_demand(&full, &method.input(), &rule);
        let shape = if alternatives.len() == 1 && shapes.len() == 1 {
            shapes.first().copied().unwrap_or("proof")
        } else {
            "proof"
        };
        let scope = match shape {
            "tenant" => "proof.tenant()?",
            "account" => "proof.account()?",
            "operator" => "proof.operator()?",
            "caller" => "proof.caller()?",
            "nobody" => "proof.nobody()?",
            "token" => "proof.token()?",
            _ => "proof",
        };
        let function = function_of(method);
        let beside = |word: &str| match function.rsplit_once("::") {
            Some((module, name)) => format!("{module}::{word}_{name}"),
            None => format!("{word}_{function}"),
        };
        let prepare = beside("prepare");
        if kind == 5 && !takes_content(&method.input()) {
            self.fault(format!("{full}: an upload takes `content`, of bytes"));
        }
        if flag(&rule, "checks") {
            let request = method.input().full_name().to_owned();
            self.checks.borrow_mut().insert(request, beside("check"));
        }
        let done = if flag(&rule, "may_refuse") {
            ""
        } else {
            ".map(Outcome::Done)"
        };
        let types = format!(
            "::<{}, {}, _",
            path_of(&method.input()),
            path_of(&method.output())
        );
        let _ = match kind {
            1 => writeln!(
                arms,
                "\"/{full}\" => read{types}>(app, request, |rd, proof, req| Box::pin(async move {{ {function}(rd, {scope}, req).await }})).await,"
            ),
            2 if flag(&rule, "prepare") => writeln!(
                arms,
                "\"/{full}\" => mutate_prepared{types}, _, _>(app, request, |rd, proof, req| Box::pin({prepare}(rd, proof, req)), |tx, proof, req, prepared| Box::pin(async move {{ {function}(tx, {scope}, req, prepared).await{done} }})).await,"
            ),
            2 => writeln!(
                arms,
                "\"/{full}\" => mutate{types}>(app, request, |tx, proof, req| Box::pin(async move {{ {function}(tx, {scope}, req).await{done} }})).await,"
            ),
            5 => writeln!(
                arms,
                "\"/{full}\" => transfer::upload{types}>(app, request, |tx, proof, req, arrived| Box::pin(async move {{ {function}(tx, {scope}, req, arrived).await{done} }})).await,"
            ),
            6 => writeln!(
                arms,
                "\"/{full}\" => transfer::download{types}>(app, request, |rd, proof, req| Box::pin(async move {{ {function}(rd, {scope}, req).await }})).await,"
            ),
            4 => writeln!(
                arms,
                "\"/{full}\" => stream_in{types}>(app, request, |tx, proof, req| Box::pin(async move {{ {function}(tx, {scope}, req).await{done} }})).await,"
            ),
            _ => writeln!(
                arms,
                "\"/{full}\" => stream_out{types}, _>(app, request, |rd, proof, req, state| Box::pin(async move {{ {function}(rd, {scope}, req, state).await }})).await,"
            ),
        };
    }

    /// What a rule demands of accounts makes sense: said wherever something changes by a right on an account, and nowhere else.
    fn account_demand(&self, full: &str, request: &MessageDescriptor, rule: &DynamicMessage) {
        let changes = matches!(number(rule, "kind"), 2 | 4 | 5);
        let of_account = |field: &str| {
            self.scope_of_field(request, field)
                .is_some_and(|scopes| scopes.contains("account"))
        };
        let alternatives = list(rule, "any_of");
        let pairs = alternatives.iter().flat_map(|a| list(a, "all_of"));
        let lends = alternatives.iter().map(|a| text(a, "lent_by"));
        let proves = pairs
            .map(|p| text(&p, "at"))
            .chain(lends)
            .any(|at| of_account(&at));
        let is_own = alternatives.iter().any(|a| of_account(&text(a, "self")));
        if !rule.has_field_by_name("account") {
            if changes && (proves || is_own) {
                self.fault(format!(
                    "{full}: its rule doesn't say what it demands of the account (account)"
                ));
            }
            return;
        }
        let Some(demand) = rule.get_field_by_name("account") else {
            return;
        };
        let demand = message(demand.as_ref());
        let (act, program) = (number(&demand, "act"), number(&demand, "program"));
        let agreements = demand
            .get_field_by_name("agreements")
            .and_then(|v| v.as_list().map(<[Value]>::to_vec))
            .unwrap_or_default();
        let nonsense = if !proves && !is_own && !flag(&demand, "late") {
            "demands something of an account and names none"
        } else if changes && act == 0 {
            "doesn't say what the call is to the account (account.act)"
        } else if !changes && (act != 0 || !agreements.is_empty()) {
            "binds a read to states or agreements, and reading always works"
        } else if !changes && program == 0 {
            "demands nothing of the account"
        } else if act == 1 && (program != 0 || !agreements.is_empty() || flag(&demand, "late")) {
            "binds what always works"
        } else if act > 1 && !proves && !flag(&demand, "late") {
            "demands something of an account that isn't proven"
        } else if agreements
            .iter()
            .any(|a| matches!(a.as_enum_number(), None | Some(0 | 5)))
        {
            "names an agreement that accounts don't accept"
        } else {
            return;
        };
        self.fault(format!("{full}: its rule {nonsense}"));
    }

    /// The kind and the field of an alternative that a mailed token opens.
    fn token_of(&self, alternative: &DynamicMessage) -> Option<(i32, String)> {
        if !alternative.has_field_by_name("token") {
            return None;
        }
        let token = message(alternative.get_field_by_name("token")?.as_ref());
        let kind = token.get_field_by_name("kind")?.as_enum_number()?;
        Some((kind, text(&token, "field")))
    }

    fn is_repeated(&self, request: &MessageDescriptor, path: &str) -> bool {
        let mut at = request.clone();
        for part in path.split('.') {
            let Some(field) = at.get_field_by_name(part) else {
                return false;
            };
            if field.is_list() {
                return true;
            }
            if let Kind::Message(inner) = field.kind() {
                at = inner;
            }
        }
        false
    }

    /// The scopes that a field's resource names can lie in.
    fn scope_of_field(
        &self,
        request: &MessageDescriptor,
        path: &str,
    ) -> Option<BTreeSet<&'static str>> {
        let kinds = self.reference_of_path(request, path)?;
        Some(
            kinds
                .iter()
                .flat_map(|k| self.scopes_of_types.get(k).cloned().unwrap_or_default())
                .collect(),
        )
    }

    fn reference_of_path(&self, request: &MessageDescriptor, path: &str) -> Option<Vec<String>> {
        let mut at = request.clone();
        let parts: Vec<_> = path.split('.').collect();
        for (i, part) in parts.iter().enumerate() {
            let field = at.get_field_by_name(part)?;
            if i + 1 == parts.len() {
                return self.reference_of(&field);
            }
            let Kind::Message(inner) = field.kind() else {
                return None;
            };
            at = inner;
        }
        None
    }

    /// The resource types that a field may name; None if it names none.
    fn reference_of(&self, field: &FieldDescriptor) -> Option<Vec<String>> {
        if self.behaves(field, Behavior::Identifier) {
            return self
                .resource_of(&field.parent_message().clone())
                .map(|(kind, _)| vec![kind]);
        }
        let options = field.options();
        if !options.has_extension(&self.reference) {
            return None;
        }
        let reference = message(options.get_extension(&self.reference).as_ref());
        let (kind, child) = (text(&reference, "type"), text(&reference, "child_type"));
        if kind == "*" {
            // The operator itself is no message, yet rights are held on it.
            let operator = std::iter::once("entente.dev/Operator".to_owned());
            return Some(
                self.scopes_of_types
                    .keys()
                    .cloned()
                    .chain(operator)
                    .collect(),
            );
        }
        if !kind.is_empty() {
            let also = self.takes(field).map(|t| text(&t, "also_names"));
            return Some(
                std::iter::once(kind)
                    .chain(also.filter(|a| !a.is_empty()))
                    .collect(),
            );
        }
        // Parents of the child: one a pattern.
        let parent = self
            .pool
            .all_messages()
            .filter_map(|m| self.resource_of(&m))
            .find(|(k, _)| *k == child)
            .map(|(_, patterns)| patterns)?;
        Some(
            parent
                .iter()
                .filter_map(|p| match scope_of_pattern(p) {
                    "tenant" => Some("entente.dev/Tenant"),
                    "account" => Some("entente.dev/Account"),
                    "identity" => Some("entente.dev/Identity"),
                    "operator" => Some("entente.dev/Operator"),
                    _ => None,
                })
                .map(str::to_owned)
                .collect(),
        )
    }

    /// All resource names that a caller can send in a request: dotted path, and types.
    fn names_in(
        &self,
        message: &MessageDescriptor,
        prefix: &str,
        depth: usize,
    ) -> Vec<(String, Vec<String>)> {
        let mut found = Vec::new();
        if depth > 4 {
            return found;
        }
        for field in message.fields() {
            if self.behaves(&field, Behavior::OutputOnly) {
                continue;
            }
            let path = format!("{prefix}{}", field.name());
            if let Some(kinds) = self.reference_of(&field) {
                // A resource's own name counts on updates only; on creation it is ignored.
                let creating = self.behaves(&field, Behavior::Identifier) && !self.updating.get();
                if !creating {
                    found.push((path.clone(), kinds));
                }
            }
            if let Kind::Message(inner) = field.kind()
                && inner.full_name().starts_with("entente.")
            {
                found.extend(self.names_in(&inner, &format!("{path}."), depth + 1));
            }
        }
        found
    }

    // ---- fields of requests

    fn fields_impl(&self, name: &str, request: &MessageDescriptor, code: &mut String) {
        self.updating.set(is_update_request(name));
        let (mut names, mut set) = (String::new(), String::new());
        for (path, kinds) in self.names_in(request, "", 0) {
            let kinds: Vec<_> = kinds.iter().map(|k| format!("\"{k}\"")).collect();
            let body = accessor(request, &path, "out.push(String::as_str(VALUE));");
            let _ = writeln!(
                names,
                "\"{path}\" => {{ {body} return Some(&[{}]); }}",
                kinds.join(", ")
            );
        }
        for path in self.paths_in(request, "", 0) {
            let body = accessor(
                request,
                &path,
                "if !crate::check::Emptiness::is_empty(VALUE) { return true; }",
            );
            let _ = writeln!(set, "\"{path}\" => {{ {body} false }}");
        }
        let has = |field: &str| request.get_field_by_name(field).is_some();
        let request_id = if has("request_id") {
            "&self.request_id"
        } else {
            "\"\""
        };
        let clear = if has("request_id") {
            "self.request_id = String::new();"
        } else {
            ""
        };
        let validate = if has("validate_only") {
            "self.validate_only"
        } else {
            "false"
        };
        let sequence = if has("sequence") {
            "self.sequence"
        } else {
            "0"
        };
        let content = if takes_content(request) {
            "Some(&mut self.content)"
        } else {
            "None"
        };
        let mut texts = String::new();
        for field in request.fields() {
            if matches!(field.kind(), Kind::String)
                && !field.is_list()
                && field.containing_oneof().is_none()
            {
                let _ = writeln!(
                    texts,
                    "\"{}\" => &self.{},",
                    field.name(),
                    rust_ident(field.name())
                );
            }
        }
        let rust = path_of(request);
        let updates = is_update_request(name);
        let checks = self.checks.borrow().get(name).map_or_else(
            || "fn check_whole(&self, _v: &mut crate::check::Violations) {}".to_owned(),
            |function| {
                format!("fn check_whole(&self, v: &mut crate::check::Violations) {{ {function}(self, v); }}")
            },
        );
        let out = if names.is_empty() { "_out" } else { "out" };
        let _ = writeln!(
            code,
            "impl crate::check::Request for {rust} {{\n\
             const UPDATES: bool = {updates};\n\
             fn names<'a>(&'a self, path: &str, {out}: &mut Vec<&'a str>) -> Option<&'static [&'static str]> {{ match path {{\n{names}_ => None }} }}\n\
             fn is_set(&self, path: &str) -> bool {{ match path {{\n{set}_ => false }} }}\n\
             fn request_id(&self) -> &str {{ {request_id} }}\n\
             fn clear_request_id(&mut self) {{ {clear} }}\n\
             fn validate_only(&self) -> bool {{ {validate} }}\n\
             fn text(&self, field: &str) -> &str {{ match field {{\n{texts}_ => \"\" }} }}\n\
             fn sequence(&self) -> i64 {{ {sequence} }}\n\
             fn content(&mut self) -> Option<&mut Vec<u8>> {{ {content} }}\n\
             {checks}\n\
             }}"
        );
    }

    /// What a request for a page of a list asks.
    fn list_impl(&self, name: &str, request: &MessageDescriptor, code: &mut String) {
        let fields = ["page_size", "page_token", "filter", "order_by"];
        let has = |field: &&str| request.get_field_by_name(field).is_some();
        if !has(&"page_token") {
            return;
        }
        if !fields.iter().all(has) {
            self.fault(format!("{name}: a list takes {}", fields.join(", ")));
            return;
        }
        let rust = path_of(request);
        let _ = writeln!(
            code,
            "impl crate::store::list::ListRequest for {rust} {{\n\
             fn page_size(&self) -> i32 {{ self.page_size }}\n\
             fn page_token(&self) -> &str {{ &self.page_token }}\n\
             fn filter(&self) -> &str {{ &self.filter }}\n\
             fn order_by(&self) -> &str {{ &self.order_by }}\n\
             fn question(&self) -> Vec<u8> {{ let mut bare = self.clone(); bare.page_size = 0; bare.page_token.clear(); prost::Message::encode_to_vec(&bare) }}\n\
             }}"
        );
    }

    fn paths_in(&self, message: &MessageDescriptor, prefix: &str, depth: usize) -> Vec<String> {
        let mut found = Vec::new();
        if depth > 2 {
            return found;
        }
        for field in message.fields() {
            if self.behaves(&field, Behavior::OutputOnly)
                || field.containing_oneof().is_some()
                || field.is_map()
            {
                continue;
            }
            let path = format!("{prefix}{}", field.name());
            if let Kind::Message(inner) = field.kind()
                && inner.full_name().starts_with("entente.")
            {
                found.extend(self.paths_in(&inner, &format!("{path}."), depth + 1));
            }
            found.push(path);
        }
        found
    }

    // ---- checks

    fn check_impl(&self, message: &MessageDescriptor, code: &mut String) {
        let mut body = String::new();
        let resource = self.resource_of(message).is_some();
        for field in message.fields() {
            if field.containing_oneof().is_some() {
                continue;
            }
            let name = field.name();
            let me = format!("self.{}", rust_ident(name));
            let full = format!("{}.{name}", message.full_name());
            if self.behaves(&field, Behavior::OutputOnly) {
                // What the service gives is never taken from a caller; an etag in a resource is a precondition.
                if name != "etag" || self.takes(&field).is_none() {
                    let _ = writeln!(body, "{me} = Default::default();");
                    continue;
                }
            }
            let required = self.behaves(&field, Behavior::Required);
            let when = match (required, resource) {
                (false, _) => "false",
                (true, false) => "true",
                (true, true) => "!mode.updates()",
            };
            let at = format!("&at.field(\"{name}\")");
            let takes = self.takes(&field);
            let limits = self.limits(&field, takes.as_ref(), &full);
            match field.kind() {
                Kind::String if self.behaves(&field, Behavior::Identifier) => {
                    let _ = writeln!(
                        body,
                        "if mode.updates() {{ crate::check::text(&mut {me}, {at}, true, &{limits}, v); }} else {{ {me} = String::new(); }}"
                    );
                }
                Kind::String if field.is_list() => {
                    let _ = writeln!(
                        body,
                        "crate::check::texts(&mut {me}, {at}, {when}, &{limits}, v);"
                    );
                }
                Kind::String => {
                    let _ = writeln!(
                        body,
                        "crate::check::text(&mut {me}, {at}, {when}, &{limits}, v);"
                    );
                }
                Kind::Enum(kind) => {
                    let values: Vec<_> = kind.values().map(|x| x.number().to_string()).collect();
                    let call = if field.is_list() {
                        "enumerations"
                    } else {
                        "enumeration"
                    };
                    let _ = writeln!(
                        body,
                        "crate::check::{call}(&{me}, {at}, {when}, &[{}], &{limits}, v);",
                        values.join(", ")
                    );
                }
                Kind::Message(inner) if inner.full_name().starts_with("entente.") => {
                    if takes.as_ref().is_some_and(|t| flag(t, "late_elements")) {
                        let _ = writeln!(
                            body,
                            "crate::check::items({me}.len(), {at}, {when}, &{limits}, v);"
                        );
                    } else if field.is_list() {
                        let _ = writeln!(
                            body,
                            "crate::check::items({me}.len(), {at}, {when}, &{limits}, v);\n\
                             for (i, item) in {me}.iter_mut().enumerate().take(crate::check::MOST_ITEMS_NAMED) {{ crate::check::Check::check(item, &at.item(\"{name}\", i), mode, v); }}"
                        );
                    } else {
                        let _ = writeln!(
                            body,
                            "crate::check::present({me}.is_some(), {at}, {when}, v);\n\
                             if let Some(inner) = &mut {me} {{ crate::check::Check::check(inner, {at}, mode, v); }}"
                        );
                    }
                }
                Kind::Message(inner) => {
                    let call = match inner.full_name() {
                        "google.protobuf.Timestamp" => "timestamp",
                        "google.protobuf.Duration" => "duration",
                        "google.protobuf.FieldMask" => "mask",
                        other => {
                            self.fault(format!("{full}: no check is known for {other}"));
                            "present"
                        }
                    };
                    let _ = writeln!(body, "crate::check::{call}(&{me}, {at}, {when}, v);");
                }
                Kind::Int32 | Kind::Int64 | Kind::Uint32 => {
                    let _ = writeln!(
                        body,
                        "crate::check::number(i64::from({me}), {at}, &{limits}, v);"
                    );
                }
                Kind::Bytes => {
                    let most = takes.as_ref().map_or(0, |t| number(t, "max_bytes"));
                    if most == 0 {
                        self.fault(format!("{full}: no limit of size (option takes.max_bytes)"));
                    }
                    let _ = writeln!(body, "crate::check::bytes(&{me}, {at}, {most}, v);");
                }
                Kind::Bool => {}
                other => self.fault(format!("{full}: no check is known for {other:?}")),
            }
        }
        for oneof in message.oneofs() {
            let name = oneof.name();
            let module = path_of(message);
            let (parent, own) = module.rsplit_once("::").unwrap_or(("", &module));
            let kind = format!("{parent}::{}::{}", snake(own), camel(name));
            let _ = writeln!(body, "match &mut self.{} {{", rust_ident(name));
            for field in oneof.fields() {
                let _ = writeln!(
                    body,
                    "Some({kind}::{}(inner)) => crate::check::Check::check(inner, &at.field(\"{}\"), mode, v),",
                    camel(field.name()),
                    field.name()
                );
            }
            let _ = writeln!(
                body,
                "None => crate::check::present(false, &at.field(\"{name}\"), true, v),\n}}"
            );
        }
        // What a mask names is the resource's matter.
        let resource = message.fields().find(
            |f| matches!(f.kind(), Kind::Message(m) if self.resource_of(&m).is_some() && !f.is_list()),
        );
        if let (Some(_), Some(resource)) = (message.get_field_by_name("update_mask"), resource) {
            let _ = writeln!(
                body,
                "crate::store::update::check(self.update_mask.as_ref(), self.{}.as_ref(), \"{}\", v);",
                rust_ident(resource.name()),
                resource.name()
            );
        }
        let used = |word: &str| if body.contains(word) { "" } else { "_" };
        let _ = writeln!(
            code,
            "impl crate::check::Check for {} {{\nfn check(&mut self, {}at: &crate::check::At<'_>, {}mode: crate::check::Mode, {}v: &mut crate::check::Violations) {{\n{body}}}\n}}",
            path_of(message),
            used("at."),
            used("mode"),
            used(" v)"),
        );
    }

    fn limits(
        &self,
        field: &FieldDescriptor,
        takes: Option<&DynamicMessage>,
        full: &str,
    ) -> String {
        let n = |name: &str| takes.map_or(0, |t| number(t, name));
        let needs_chars = matches!(field.kind(), Kind::String);
        if needs_chars && n("max_chars") == 0 {
            self.fault(format!(
                "{full}: no limit of length (option takes.max_chars)"
            ));
        }
        if field.is_list() && n("max_items") == 0 {
            self.fault(format!(
                "{full}: no limit of number (option takes.max_items)"
            ));
        }
        let is_name =
            self.behaves(field, Behavior::Identifier) || self.reference_of(field).is_some();
        let kinds = if is_name && n("format") == 7 {
            self.reference_of(field).unwrap_or_default()
        } else {
            Vec::new()
        };
        let kinds: Vec<_> = kinds.iter().map(|k| format!("\"{k}\"")).collect();
        format!(
            "crate::check::Takes {{ max_chars: {}, min_chars: {}, multi_line: {}, format: {}, max_items: {}, min_items: {}, min_value: {}, max_value: {}, late_elements: {}, kinds: &[{}] }}",
            n("max_chars"),
            n("min_chars"),
            takes.is_some_and(|t| flag(t, "multi_line")),
            n("format"),
            n("max_items"),
            n("min_items"),
            n("min_value"),
            n("max_value"),
            takes.is_some_and(|t| flag(t, "late_elements")),
            kinds.join(", ")
        )
    }

    // ---- resources and secrets

    fn resource_impl(&self, message: &MessageDescriptor, code: &mut String) {
        let (mut mutable, mut fixed, mut set, mut required) =
            (Vec::new(), Vec::new(), String::new(), Vec::new());
        for field in message.fields() {
            let name = field.name();
            let closed = [
                Behavior::OutputOnly,
                Behavior::Immutable,
                Behavior::Identifier,
            ]
            .iter()
            .any(|b| self.behaves(&field, *b));
            if closed {
                fixed.push(format!("\"{name}\""))
            } else {
                mutable.push(format!("\"{name}\""))
            }
            if self.behaves(&field, Behavior::Required) {
                required.push(format!("\"{name}\""));
            }
            let _ = writeln!(
                set,
                "\"{name}\" => !crate::check::Emptiness::is_empty(&self.{}),",
                rust_ident(name)
            );
        }
        let _ = writeln!(
            code,
            "impl crate::store::update::Resource for {} {{\n\
             const MUTABLE: &'static [&'static str] = &[{}];\n\
             const FIXED: &'static [&'static str] = &[{}];\n\
             const REQUIRED: &'static [&'static str] = &[{}];\n\
             fn is_set(&self, field: &str) -> bool {{ match field {{\n{set}_ => false }} }}\n}}",
            path_of(message),
            mutable.join(", "),
            fixed.join(", "),
            required.join(", ")
        );
    }

    fn is_secret(&self, field: &FieldDescriptor) -> bool {
        self.takes(field).is_some_and(|t| flag(&t, "secret"))
    }

    fn bears_secret(&self, message: &MessageDescriptor) -> bool {
        message
            .fields()
            .any(|f| self.is_secret(&f) || self.behaves(&f, Behavior::InputOnly))
    }

    fn redact_impl(&self, message: &MessageDescriptor, code: &mut String) {
        let mut body = String::new();
        for field in message.fields() {
            let me = format!("self.{}", rust_ident(field.name()));
            if self.is_secret(&field) {
                let _ = writeln!(body, "omitted |= !{me}.is_empty(); {me} = String::new();");
            } else if let Kind::Message(inner) = field.kind()
                && inner.full_name().starts_with("entente.")
                && field.containing_oneof().is_none()
            {
                let walk = if field.is_list() {
                    format!("for inner in &mut {me}")
                } else {
                    format!("if let Some(inner) = &mut {me}")
                };
                let _ = writeln!(
                    body,
                    "{walk} {{ omitted |= crate::check::Redact::redact(inner); }}"
                );
            }
        }
        if message.get_field_by_name("secret_omitted").is_some() {
            body.push_str("self.secret_omitted |= omitted;\n");
        }
        let mutable = if body.contains("omitted |=") {
            "mut "
        } else {
            ""
        };
        let _ = writeln!(
            code,
            "impl crate::check::Redact for {} {{\nfn redact(&mut self) -> bool {{ let {mutable}omitted = false;\n{body}omitted }}\n}}",
            path_of(message)
        );
    }

    // ---- options

    fn takes(&self, field: &FieldDescriptor) -> Option<DynamicMessage> {
        let options = field.options();
        options
            .has_extension(&self.takes)
            .then(|| message(options.get_extension(&self.takes).as_ref()))
    }

    fn behaves(&self, field: &FieldDescriptor, behavior: Behavior) -> bool {
        match field.options().get_extension(&self.behavior).as_ref() {
            Value::List(all) => all
                .iter()
                .any(|v| v.as_enum_number() == Some(behavior as i32)),
            _ => false,
        }
    }

    fn resource_of(&self, message_: &MessageDescriptor) -> Option<(String, Vec<String>)> {
        let options = message_.options();
        if !options.has_extension(&self.resource) {
            return None;
        }
        let resource = message(options.get_extension(&self.resource).as_ref());
        let patterns = resource
            .get_field_by_name("pattern")
            .and_then(|v| {
                v.as_list().map(|l| {
                    l.iter()
                        .filter_map(|p| p.as_str().map(str::to_owned))
                        .collect()
                })
            })
            .unwrap_or_default();
        Some((text(&resource, "type"), patterns))
    }
}

/// Whether a message has the field that an upload's bytes come in.
fn takes_content(request: &MessageDescriptor) -> bool {
    request
        .get_field_by_name("content")
        .is_some_and(|f| matches!(f.kind(), Kind::Bytes) && !f.is_list())
}

fn is_update_request(name: &str) -> bool {
    name.rsplit('.')
        .next()
        .is_some_and(|n| n.starts_with("Update"))
}

fn scope_of_pattern(pattern: &str) -> &'static str {
    match pattern.split('/').next() {
        Some("tenants") => "tenant",
        Some("accounts") => "account",
        Some("identities") => "identity",
        Some("operator") => "operator",
        _ => "proof",
    }
}

fn reach(
    message: &MessageDescriptor,
    into: &mut BTreeMap<String, MessageDescriptor>,
    follow: &dyn Fn(&FieldDescriptor) -> bool,
) {
    if !message.full_name().starts_with("entente.") || into.contains_key(message.full_name()) {
        return;
    }
    into.insert(message.full_name().to_owned(), message.clone());
    for field in message.fields() {
        if let Kind::Message(inner) = field.kind()
            && follow(&field)
        {
            reach(&inner, into, follow);
        }
    }
}

/// Code that runs `action` (with VALUE for a reference to the field) for each value that the dotted path names.
fn accessor(request: &MessageDescriptor, path: &str, action: &str) -> String {
    let mut at = request.clone();
    let (mut open, mut close) = (String::new(), String::new());
    let mut value = "self".to_owned();
    let parts: Vec<_> = path.split('.').collect();
    for (i, part) in parts.iter().enumerate() {
        let Some(field) = at.get_field_by_name(part) else {
            break;
        };
        let last = i + 1 == parts.len();
        let place = format!("{value}.{}", rust_ident(part));
        let message_field = matches!(field.kind(), Kind::Message(_));
        if field.is_list() && (!last || action.contains("as_str")) {
            let _ = write!(open, "for x{i} in &{place} {{ ");
            close.push_str(" }");
            value = format!("x{i}");
        } else if message_field && !last {
            let _ = write!(open, "if let Some(x{i}) = &{place} {{ ");
            close.push_str(" }");
            value = format!("x{i}");
        } else {
            value = format!("&{place}");
        }
        if let Kind::Message(inner) = field.kind() {
            at = inner;
        }
    }
    format!("{open}{}{close}", action.replace("VALUE", &value))
}

/// `entente.directory.v1.UserService/CreateUser` is `crate::directory::user::create_user`.
fn function_of(method: &MethodDescriptor) -> String {
    let service = method.parent_service();
    let package = service
        .package_name()
        .split('.')
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let noun = snake(
        service
            .name()
            .strip_suffix("Service")
            .unwrap_or(service.name()),
    );
    let name = snake(method.name());
    if noun == package {
        format!("crate::{package}::{name}")
    } else {
        format!("crate::{package}::{noun}::{name}")
    }
}

fn path_of(message: &MessageDescriptor) -> String {
    format!(
        "crate::proto::{}::{}",
        message.package_name().replace('.', "::"),
        message.name()
    )
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            let previous_lower = name.as_bytes()[i - 1].is_ascii_lowercase();
            let next_lower = name
                .as_bytes()
                .get(i + 1)
                .is_some_and(u8::is_ascii_lowercase);
            if previous_lower
                || (next_lower && name.as_bytes()[i - 1].is_ascii_uppercase() && i > 1)
            {
                out.push('_');
            }
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn camel(name: &str) -> String {
    name.split('_')
        .map(|w| {
            let mut c = w.chars();
            c.next().map_or(String::new(), |f| {
                f.to_ascii_uppercase().to_string() + c.as_str()
            })
        })
        .collect()
}

fn rust_ident(name: &str) -> String {
    match name {
        "type" | "use" | "self" | "in" | "as" | "for" => format!("r#{name}"),
        _ => name.to_owned(),
    }
}

fn message(value: &Value) -> DynamicMessage {
    match value {
        Value::Message(m) => m.clone(),
        other => unreachable!("an option of message type holds {other:?}"),
    }
}

fn list(of: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    of.get_field_by_name(name)
        .and_then(|v| v.as_list().map(|l| l.iter().map(message).collect()))
        .unwrap_or_default()
}

fn text(of: &DynamicMessage, name: &str) -> String {
    of.get_field_by_name(name)
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn flag(of: &DynamicMessage, name: &str) -> bool {
    of.get_field_by_name(name)
        .and_then(|v| v.as_bool())
        .unwrap_or(false)
}

fn number(of: &DynamicMessage, name: &str) -> i64 {
    match of.get_field_by_name(name).as_deref() {
        Some(Value::U32(n)) => i64::from(*n),
        Some(Value::I32(n)) => i64::from(*n),
        Some(Value::I64(n)) => *n,
        Some(Value::EnumNumber(n)) => i64::from(*n),
        _ => 0,
    }
}
