//! Calls made from the descriptors, so that no method is forgotten: requests built by reflection and sent as bytes.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _};
use entente::proto::{POOL, access::FieldRule};
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::{
    DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, Value,
};
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::harness::{Caller, request_id};

/// A codec that leaves bytes as they are.
#[derive(Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        *self
    }
    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

/// All methods of ours, by path such as `/entente.directory.v1.UserService/GetUser`.
pub fn methods() -> BTreeMap<String, MethodDescriptor> {
    POOL.services()
        .filter(|s| s.full_name().starts_with("entente."))
        .flat_map(|s| s.methods().collect::<Vec<_>>())
        .map(|m| {
            let path = format!("/{}/{}", m.parent_service().full_name(), m.name());
            (path, m)
        })
        .collect()
}

/// Makes a call; gives the bytes of the answer. Of a stream only the opening is waited for.
pub async fn call(
    caller: &Caller,
    method: &MethodDescriptor,
    message: Vec<u8>,
) -> Result<Vec<u8>, Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut grpc = tonic::client::Grpc::new(caller.wire());
    grpc.ready().await.expect("the server is there");
    let path = PathAndQuery::try_from(path).unwrap();
    let opened = grpc
        .server_streaming(Request::new(message), path, Raw)
        .await?;
    if method.is_server_streaming() {
        return Ok(Vec::new());
    }
    Ok(opened.into_inner().message().await?.unwrap_or_default())
}

/// An extension of the protos.
pub fn extension(name: &str) -> ExtensionDescriptor {
    POOL.get_extension_by_name(name).unwrap()
}

/// `google.api.field_behavior`: REQUIRED.
pub const REQUIRED: i32 = 2;
/// OUTPUT_ONLY.
pub const OUTPUT_ONLY: i32 = 3;
/// IDENTIFIER.
pub const IDENTIFIER: i32 = 8;

/// Whether a field is marked so.
pub fn behaves(field: &FieldDescriptor, behavior: i32) -> bool {
    let options = field.options();
    let marks = options.get_extension(&extension("google.api.field_behavior"));
    marks
        .as_list()
        .is_some_and(|l| l.iter().any(|m| m.as_enum_number() == Some(behavior)))
}

/// The limits of a field, empty if none are declared.
pub fn takes(field: &FieldDescriptor) -> FieldRule {
    let options = field.options();
    let value = options.get_extension(&extension("entente.access.v1.takes"));
    value.as_message().unwrap().transcode_to().unwrap()
}

/// The type and patterns of a message that is a resource.
pub fn resource_of(message: &MessageDescriptor) -> Option<(String, Vec<String>)> {
    let (options, extension) = (message.options(), extension("google.api.resource"));
    if !options.has_extension(&extension) {
        return None;
    }
    let value = options.get_extension(&extension);
    let resource = value.as_message()?;
    let patterns = resource.get_field_by_name("pattern")?;
    Some((
        resource.get_field_by_name("type")?.as_str()?.to_owned(),
        patterns
            .as_list()?
            .iter()
            .filter_map(|p| p.as_str().map(str::to_owned))
            .collect(),
    ))
}

/// The resource type that a field names: a type, `*`, or `child of` a type.
pub fn reference_of(field: &FieldDescriptor) -> Option<String> {
    if behaves(field, IDENTIFIER) {
        return resource_of(field.parent_message()).map(|(kind, _)| kind);
    }
    let (options, extension) = (field.options(), extension("google.api.resource_reference"));
    if !options.has_extension(&extension) {
        return None;
    }
    let value = options.get_extension(&extension);
    let reference = value.as_message()?;
    let text = |name: &str| {
        reference
            .get_field_by_name(name)
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let (kind, child) = (text("type"), text("child_type"));
    Some(if kind.is_empty() {
        format!("child of {child}")
    } else {
        kind
    })
}

/// The resources that a request names: by dotted path, else by type.
#[derive(Clone, Default)]
pub struct Names(pub BTreeMap<String, String>);

impl Names {
    /// With another one.
    pub fn with(mut self, key: &str, name: impl Into<String>) -> Self {
        self.0.insert(key.to_owned(), name.into());
        self
    }
    fn of(&self, path: &str, kind: &str) -> String {
        self.0
            .get(path)
            .or_else(|| self.0.get(kind))
            .cloned()
            .unwrap_or_else(|| panic!("no name is known for {path}, a {kind}"))
    }
}

/// Whether the request changes a resource that it holds.
pub fn updates(method: &MethodDescriptor) -> bool {
    method.name().starts_with("Update")
}

/// A field that a caller may send, and where it stands.
#[derive(Clone, Debug)]
pub struct Place {
    /// Dotted path in the request.
    pub path: String,
    /// The fields on the way to it, itself last.
    pub way: Vec<FieldDescriptor>,
}

impl Place {
    /// The field itself.
    pub fn field(&self) -> &FieldDescriptor {
        self.way.last().unwrap()
    }
    /// As violations name it: the first element of each list on the way.
    pub fn told(&self) -> String {
        let last = self.way.len() - 1;
        let parts: Vec<_> = self
            .way
            .iter()
            .enumerate()
            .map(|(i, f)| {
                if f.is_list() && i < last {
                    format!("{}[0]", f.name())
                } else {
                    f.name().to_owned()
                }
            })
            .collect();
        parts.join(".")
    }
}

/// All fields that a caller may send, messages within messages included.
pub fn places(method: &MethodDescriptor) -> Vec<Place> {
    let mut found = Vec::new();
    walk(
        &method.input(),
        updates(method),
        &mut Vec::new(),
        &mut found,
    );
    found
}

fn walk(
    message: &MessageDescriptor,
    updating: bool,
    way: &mut Vec<FieldDescriptor>,
    found: &mut Vec<Place>,
) {
    for field in message.fields() {
        if behaves(&field, OUTPUT_ONLY) || (behaves(&field, IDENTIFIER) && !updating) {
            continue;
        }
        way.push(field.clone());
        let path: Vec<_> = way.iter().map(|f| f.name().to_owned()).collect();
        found.push(Place {
            path: path.join("."),
            way: way.clone(),
        });
        if let Kind::Message(inner) = field.kind()
            && inner.full_name().starts_with("entente.")
            && way.len() < 6
        {
            walk(&inner, updating, way, found);
        }
        way.pop();
    }
}

/// A request with everything that is required, and `validate_only`.
pub fn request(method: &MethodDescriptor, names: &Names) -> DynamicMessage {
    message(&method.input(), updates(method), "", names)
}

/// A message with everything that is required, and what is said of it by its path.
pub fn message(
    of: &MessageDescriptor,
    updating: bool,
    prefix: &str,
    names: &Names,
) -> DynamicMessage {
    let mut made = DynamicMessage::new(of.clone());
    for field in of.fields() {
        if behaves(&field, OUTPUT_ONLY) {
            continue;
        }
        if field.name() == "validate_only" {
            made.set_field(&field, Value::Bool(true));
            continue;
        }
        let first_of_oneof = field
            .containing_oneof()
            .is_some_and(|o| o.fields().next().is_some_and(|f| f == field));
        let identifies = updating && behaves(&field, IDENTIFIER);
        let path = format!("{prefix}{}", field.name());
        let said = names.0.contains_key(&path);
        if !behaves(&field, REQUIRED) && !identifies && !first_of_oneof && !said {
            continue;
        }
        let one = value(&field, updating, &path, names);
        let whole = if field.is_list() {
            Value::List(vec![one])
        } else {
            one
        };
        made.set_field(&field, whole);
    }
    made
}

/// A value that a field takes.
pub fn value(field: &FieldDescriptor, updating: bool, path: &str, names: &Names) -> Value {
    match field.kind() {
        Kind::Message(inner) => Value::Message(match inner.full_name() {
            "google.protobuf.Duration" => {
                let mut made = DynamicMessage::new(inner);
                made.set_field_by_name("seconds", Value::I64(1));
                made
            }
            "google.protobuf.Timestamp" => {
                let mut made = DynamicMessage::new(inner);
                // The year 2100 but one; tests may run for long.
                made.set_field_by_name("seconds", Value::I64(4_070_000_000));
                made
            }
            _ => message(&inner, updating, &format!("{path}."), names),
        }),
        Kind::Enum(kind) => Value::EnumNumber(
            kind.values()
                .map(|v| v.number())
                .find(|n| *n != 0)
                .unwrap_or(0),
        ),
        Kind::Bool => Value::Bool(false),
        Kind::Int32 => Value::I32(1),
        Kind::Int64 => Value::I64(1),
        Kind::String => Value::String(match (names.0.get(path), reference_of(field)) {
            (Some(said), _) => said.clone(),
            (None, Some(kind)) => names.of(path, &kind),
            (None, None) => plain(field),
        }),
        other => panic!("{path} is a {other:?}, which no request has"),
    }
}

fn plain(field: &FieldDescriptor) -> String {
    match takes(field).format {
        1 => request_id(),
        2 => "somebody@new.example".to_owned(),
        3 => "newcomer".to_owned(),
        4 => "newcomer".to_owned(),
        5 => "https://new.example/back".to_owned(),
        6 => "urn:new:thing".to_owned(),
        8 => "wrong blue gate 77".to_owned(),
        9 => "tenant.read".to_owned(),
        10 => "FR".to_owned(),
        12 => "EUR".to_owned(),
        11 => "+33142685300".to_owned(),
        _ => "Something".to_owned(),
    }
}

/// Sets a field at a place, making the messages on the way, in the first element of lists.
pub fn set(request: &mut DynamicMessage, way: &[FieldDescriptor], names: &Names, to: Value) {
    let (field, rest) = way.split_first().unwrap();
    if rest.is_empty() {
        request.set_field(field, to);
        return;
    }
    let Kind::Message(inner) = field.kind() else {
        panic!("{} is no message", field.full_name());
    };
    let there = request.has_field(field);
    let mut taken = match request.get_field(field).into_owned() {
        Value::Message(m) if there => m,
        Value::List(l) if there => l[0].as_message().unwrap().clone(),
        _ => message(&inner, false, "", names),
    };
    set(&mut taken, rest, names, to);
    let taken = Value::Message(taken);
    request.set_field(
        field,
        if field.is_list() {
            Value::List(vec![taken])
        } else {
            taken
        },
    );
}

/// The request's bytes.
pub fn bytes(request: &DynamicMessage) -> Vec<u8> {
    request.encode_to_vec()
}
