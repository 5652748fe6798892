//! What the registry double answers: distribution-spec v1.1's end points, with the faults it was told to have.
#![allow(dead_code)]

use super::registry::{Auth, Ranges, Shared, Stumble, late_list};
use super::web::{Body, Request, Response};
use base64::Engine as _;
use imgmv::internals::image::media_type;
use imgmv::{Descriptor, Digest, Manifest};
use std::io::Read;
use std::sync::Arc;

fn error(status: u16, code: &str, message: &str) -> Response {
    Response::json(status, &format!(r#"{{"errors":[{{"code":"{code}","message":"{message}","detail":null}}]}}"#))
}

/// `None`: the connection breaks off.
pub fn answer(shared: &Shared, request: &mut Request, body: &mut dyn Read) -> Option<Response> {
    if let Some(response) = stumble(shared, request) {
        return response;
    }
    if request.path == "/token" {
        return Some(token(shared, request, body));
    }
    if let Some(refused) = unauthorized(shared, request) {
        return Some(refused);
    }
    if shared.faults().endless.is_some_and(|part| request.path.contains(part)) {
        return Some(Response::new(200).with("Content-Type", "application/json").body(Body::Endless));
    }
    let Some(path) = request.path.strip_prefix("/v2/").map(str::to_owned) else {
        return Some(Response::new(404));
    };
    if path.is_empty() {
        return Some(Response::json(200, "{}"));
    }
    for (part, route) in [
        ("/blobs/uploads/", uploads as Route),
        ("/blobs/", blobs),
        ("/manifests/", manifests),
        ("/tags/", tags),
        ("/referrers/", referrers),
    ] {
        if let Some((repository, rest)) = path.split_once(part) {
            return route(shared, repository, rest, request, body);
        }
    }
    Some(error(404, "NAME_UNKNOWN", "no such address"))
}

type Route = fn(&Shared, &str, &str, &mut Request, &mut dyn Read) -> Option<Response>;

fn stumble(shared: &Shared, request: &Request) -> Option<Option<Response>> {
    let mut faults = shared.faults();
    let fits = |s: &&mut Stumble| s.times > 0 && s.method == request.method && request.path.contains(s.path);
    let stumble = faults.stumbles.iter_mut().find(fits)?;
    stumble.times -= 1;
    if stumble.status == 0 {
        return Some(None);
    }
    let response = Response::json(stumble.status, &stumble.body);
    Some(Some(match &stumble.retry_after {
        Some(wish) => response.with("Retry-After", wish),
        None => response,
    }))
}

fn basic(request: &Request) -> Option<(String, String)> {
    let encoded = request.header("authorization")?.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

fn token(shared: &Shared, request: &Request, body: &mut dyn Read) -> Response {
    let faults = shared.faults().clone();
    if let Some(to) = &faults.redirect_token {
        return Response::new(307).with("Location", to);
    }
    let Auth::Bearer(bearer) = faults.auth else {
        return error(404, "UNKNOWN", "no token service");
    };
    let mut text = String::new();
    let _ = body.read_to_string(&mut text);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(text.as_bytes()).into_owned().collect();
    let field = |name: &str| form.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
    let known = match request.method.as_str() {
        "POST" if !bearer.post => return Response::new(404),
        "POST" => field("grant_type").as_deref() == Some("refresh_token") && field("refresh_token") == bearer.identity,
        _ => match (&bearer.identity, &bearer.user) {
            (Some(identity), _) => basic(request).is_some_and(|(user, token)| user == "<token>" && token == *identity),
            (None, Some(user)) => basic(request).as_ref() == Some(user),
            (None, None) => true,
        },
    };
    if !known && !bearer.public_pull {
        return Response::json(401, r#"{"details":"incorrect username or password"}"#);
    }
    let query: Vec<(String, String)> = url::form_urlencoded::parse(request.query.as_bytes()).into_owned().collect();
    let mut scopes: Vec<String> = query.into_iter().filter(|(name, _)| name == "scope").map(|(_, v)| v).collect();
    scopes.extend(field("scope").iter().flat_map(|text| text.split(' ').map(str::to_owned)));
    if !known {
        scopes.retain(|scope| !scope.contains("push"));
    }
    let mut state = shared.state();
    state.next += 1;
    let token = format!("token-{}-secret", state.next);
    state.tokens.insert(token.clone(), (scopes, bearer.uses));
    Response::json(200, &format!(r#"{{"token":"{token}","expires_in":300}}"#))
}

/// The refusal of a request that does not carry what it should.
fn unauthorized(shared: &Shared, request: &Request) -> Option<Response> {
    let auth = shared.faults().auth.clone();
    let words = error(401, "UNAUTHORIZED", "authentication required");
    match auth {
        Auth::Open => None,
        Auth::Basic { user, password } if basic(request) == Some((user.clone(), password.clone())) => None,
        Auth::Basic { .. } => Some(words.with("WWW-Authenticate", "Basic realm=\"double\"")),
        Auth::Bearer(bearer) => {
            let pulls = matches!(request.method.as_str(), "GET" | "HEAD");
            if pulls && bearer.public_pull && request.header("authorization").is_none() {
                return None;
            }
            let needed = needed(request);
            let mut state = shared.state();
            let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
            if let Some((scopes, uses)) = token.and_then(|token| state.tokens.get_mut(token)) {
                let covers = |(name, action): &(String, &str)| {
                    scopes.iter().any(|scope| {
                        let parts: Vec<&str> = scope.splitn(3, ':').collect();
                        parts.len() == 3 && parts[1] == name && parts[2].split(',').any(|own| own == *action)
                    })
                };
                if *uses > 0 && needed.iter().all(covers) {
                    *uses -= 1;
                    return None;
                }
            }
            let realm = bearer.realm.clone().unwrap_or(format!("{}/token", shared.base()));
            let scope = needed.first().map(|(name, action)| format!(",scope=\"repository:{name}:{action}\""));
            let challenge =
                format!("{}Bearer realm=\"{realm}\",service=\"double\"{}", bearer.before, scope.unwrap_or_default());
            Some(words.with("WWW-Authenticate", challenge))
        }
    }
}

/// The permissions that a request takes.
fn needed(request: &Request) -> Vec<(String, &'static str)> {
    let Some(path) = request.path.strip_prefix("/v2/").filter(|path| !path.is_empty()) else {
        return Vec::new();
    };
    let end = ["/blobs/", "/manifests/", "/tags/", "/referrers/"].iter().filter_map(|part| path.find(part)).min();
    let name = path[..end.unwrap_or(path.len())].to_owned();
    let action = if matches!(request.method.as_str(), "GET" | "HEAD") { "pull" } else { "push" };
    let mut all = vec![(name, action)];
    all.extend(request.parameter("from").map(|from| (from, "pull")));
    all
}

fn blobs(shared: &Shared, name: &str, digest: &str, request: &mut Request, _: &mut dyn Read) -> Option<Response> {
    let found = digest.parse().ok().and_then(|digest: Digest| {
        shared.state().repositories.get(name).and_then(|repository| repository.blobs.get(&digest).cloned())
    });
    let Some(bytes) = found else {
        return Some(error(404, "BLOB_UNKNOWN", "blob unknown to registry"));
    };
    let mut faults = shared.faults();
    if request.method == "HEAD" {
        return Some(Response::new(200).with("Content-Length", bytes.len().to_string()));
    }
    if let Some(base) = &faults.redirect_blobs {
        let to = format!("{base}{}?signature=secret", request.path);
        return Some(Response::new(307).with("Location", to));
    }
    let fewer = |fault: &mut Option<(usize, usize)>| match fault {
        Some((after, times)) if *times > 0 => {
            *times -= 1;
            Some(*after)
        }
        _ => None,
    };
    if let Some(cut) = fewer(&mut faults.stall) {
        return Some(Response::new(200).body(Body::Stalled { bytes, cut }));
    }
    let cut = fewer(&mut faults.cut);
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let range = range.filter(|_| faults.ranges != Ranges::Ignored);
    let from = range.and_then(|(from, _)| from.parse::<usize>().ok());
    let to =
        range.and_then(|(_, last)| last.parse::<usize>().ok()).map_or(bytes.len(), |last| bytes.len().min(last + 1));
    match from {
        Some(from) if from >= bytes.len() => Some(Response::new(416)),
        Some(from) => {
            let from = if faults.ranges == Ranges::Wrong { from - 1 } else { from };
            let range = format!("bytes {from}-{}/{}", to - 1, bytes.len());
            Some(Response::new(206).with("Content-Range", range).body(Body::Part { bytes, from, to, cut }))
        }
        None => Some(Response::new(200).body(Body::Part { bytes, from: 0, to, cut })),
    }
}

fn manifests(shared: &Shared, name: &str, at: &str, request: &mut Request, body: &mut dyn Read) -> Option<Response> {
    if request.method == "PUT" {
        return put_manifest(shared, name, at, request, body);
    }
    if request.method == "DELETE" {
        return delete_manifest(shared, name, at);
    }
    let mut faults = shared.faults();
    let mut state = shared.state();
    let repository = state.repositories.get(name);
    let found = repository.and_then(|repository| {
        let digest = at.parse().ok().or_else(|| repository.tags.get(at).copied())?;
        Some((digest, repository.manifests.get(&digest)?))
    });
    let Some((digest, (media_type, bytes))) = found else {
        return Some(error(404, "MANIFEST_UNKNOWN", "manifest unknown"));
    };
    let mut response = Response::new(200).with("Content-Type", media_type);
    if !faults.no_digest_header {
        response = response.with("Docker-Content-Digest", digest.to_string());
    }
    if let Some(pulls) = &mut faults.pulls {
        *pulls = pulls.saturating_sub(u64::from(request.method == "GET"));
        response = response.with("RateLimit-Remaining", format!("{pulls};w=21600"));
    }
    if request.method == "HEAD" {
        return Some(response.with("Content-Length", bytes.len().to_string()));
    }
    let mut bytes = bytes.clone();
    if one_less(&mut faults.flip_manifest) {
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
    }
    if at.starts_with("sha256-") && !at.contains('.') && one_less(&mut faults.late_referrers_tags) {
        let late = late_list();
        let repository = state.repositories.entry(name.to_owned()).or_default();
        repository.tags.insert(at.to_owned(), late.digest());
        repository.manifests.insert(late.digest(), (media_type::OCI_INDEX.to_owned(), late.bytes));
    }
    Some(response.body(Body::Bytes(bytes)))
}

/// A tag goes alone; a digest goes with all of its tags.
fn delete_manifest(shared: &Shared, name: &str, at: &str) -> Option<Response> {
    let mut state = shared.state();
    let repository = state.repositories.entry(name.to_owned()).or_default();
    let found = match at.parse::<Digest>() {
        Ok(digest) => {
            repository.tags.retain(|_, target| *target != digest);
            repository.manifests.remove(&digest).is_some()
        }
        Err(_) if shared.faults().keeps_tags => return Some(error(405, "UNSUPPORTED", "tags stay")),
        Err(_) => repository.tags.remove(at).is_some(),
    };
    Some(if found { Response::new(202) } else { error(404, "MANIFEST_UNKNOWN", "manifest unknown") })
}

fn put_manifest(shared: &Shared, name: &str, at: &str, request: &mut Request, body: &mut dyn Read) -> Option<Response> {
    let mut bytes = Vec::new();
    request.received = body.take(8 << 20).read_to_end(&mut bytes).ok()? as u64;
    let media_type = request.header("content-type").unwrap_or_default().to_owned();
    let mut faults = shared.faults();
    if faults.refused_types.contains(&&*media_type) {
        return Some(error(400, "MANIFEST_INVALID", "manifest invalid"));
    }
    let manifest = match Manifest::from_bytes(bytes, &media_type) {
        Ok(manifest) => manifest,
        Err(why) => return Some(error(400, "MANIFEST_INVALID", &why.to_string().replace('"', "'"))),
    };
    let digest = manifest.digest();
    let mut state = shared.state();
    let repository = state.repositories.entry(name.to_owned()).or_default();
    let lacks_blob = manifest.blobs().iter().any(|blob| !repository.blobs.contains_key(&blob.digest));
    let lacks_child = !faults.takes_sparse
        && manifest.children().iter().any(|child| !repository.manifests.contains_key(&child.digest));
    if lacks_blob || lacks_child {
        return Some(error(404, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry"));
    }
    match at.parse::<Digest>() {
        Ok(named) if named != digest => return Some(error(400, "DIGEST_INVALID", "digest did not match")),
        Ok(_) => {}
        Err(_) if faults.immutable.is_some() && repository.tags.contains_key(at) => {
            return Some(error(400, "TAG_INVALID", faults.immutable.as_deref().unwrap_or_default()));
        }
        Err(_) if at.starts_with("sha256-") && one_less(&mut faults.lost_referrers_tags) => {}
        Err(_) => {
            repository.tags.insert(at.to_owned(), digest);
        }
    }
    repository.manifests.insert(digest, (media_type, manifest.bytes.clone()));
    let said = faults.stored_digest.clone().unwrap_or(digest.to_string());
    let response = Response::new(201).with("Docker-Content-Digest", said);
    Some(match manifest.subject {
        Some(subject) if !faults.no_referrers => response.with("OCI-Subject", subject.digest.to_string()),
        _ => response,
    })
}

fn tags(shared: &Shared, name: &str, _: &str, request: &mut Request, _: &mut dyn Read) -> Option<Response> {
    let faults = shared.faults().clone();
    let page = faults.page.unwrap_or(usize::MAX);
    let state = shared.state();
    let Some(repository) = state.repositories.get(name) else {
        return Some(error(404, "NAME_UNKNOWN", "repository name not known to registry"));
    };
    let last = request.parameter("last").unwrap_or_default();
    let is_listed = |tag: &&String| faults.unlisted.is_none_or(|part| !tag.contains(part));
    let rest: Vec<&String> = repository.tags.keys().filter(|tag| **tag > last).filter(is_listed).collect();
    let shown = &rest[..page.min(rest.len())];
    let list: Vec<String> = shown.iter().map(|tag| format!("\"{tag}\"")).collect();
    let response = Response::json(200, &format!(r#"{{"name":"{name}","tags":[{}]}}"#, list.join(",")));
    Some(match shown.last() {
        Some(last) if shown.len() < rest.len() => {
            response.with("Link", format!("</v2/{name}/tags/list?last={last}&n={page}>; rel=\"next\""))
        }
        _ => response,
    })
}

fn referrer_entry(manifest: &Manifest) -> Descriptor {
    let config_type = || manifest.config().map(|config| config.media_type.clone());
    let artifact_type = manifest.artifact_type.clone().or_else(config_type);
    Descriptor { artifact_type, ..manifest.descriptor.clone() }
}

fn referrers(shared: &Shared, name: &str, subject: &str, _: &mut Request, _: &mut dyn Read) -> Option<Response> {
    if shared.faults().no_referrers {
        return Some(Response::new(404));
    }
    let state = shared.state();
    let all = state.repositories.get(name).into_iter().flat_map(|repository| &repository.manifests);
    let refers = all.filter_map(|(_, (media_type, bytes))| {
        let manifest = Manifest::from_bytes(bytes.clone(), media_type).ok()?;
        let fits = manifest.subject.as_ref().is_some_and(|own| own.digest.to_string() == subject);
        fits.then(|| referrer_entry(&manifest))
    });
    let list = serde_json::to_string(&refers.collect::<Vec<_>>()).ok()?;
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":{list}}}"#, media_type::OCI_INDEX);
    Some(Response::json(200, &index))
}

fn uploads(shared: &Shared, name: &str, id: &str, request: &mut Request, body: &mut dyn Read) -> Option<Response> {
    let location = |id: &str| {
        let path = format!("/v2/{name}/blobs/uploads/{id}?state=a%2Fb%3D");
        match &shared.faults().locations {
            None => path,
            Some(base) if base.is_empty() => format!("{}{path}", shared.base()),
            Some(base) => format!("{base}{path}"),
        }
    };
    if request.method == "POST" {
        return Some(begin(shared, name, request, &location));
    }
    if !shared.state().uploads.contains_key(id) {
        return Some(error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"));
    }
    let said = |size: usize| format!("0-{}", size.saturating_sub(1));
    match request.method.as_str() {
        "DELETE" => {
            shared.state().uploads.remove(id);
            Some(Response::new(204))
        }
        "GET" => {
            let size = shared.state().uploads[id].len();
            Some(Response::new(204).with("Location", location(id)).with("Range", said(size)))
        }
        "PATCH" | "PUT" => {
            let again = request.method == "PATCH" && !shared.state().uploads[id].is_empty();
            let refused = shared.faults().patches.is_some_and(|patches| patches == 0 || (patches == 1 && again));
            if request.method == "PATCH" && refused {
                return Some(error(416, "RANGE_INVALID", "invalid content range"));
            }
            match take(shared, id, request, body) {
                Taken::Added => {}
                Taken::Broken => return None,
                Taken::Elsewhere => {
                    let size = shared.state().uploads.get(id).map_or(0, Vec::len);
                    return Some(Response::new(416).with("Location", location(id)).with("Range", said(size)));
                }
            }
            let large = shared.state().uploads.get(id).is_some_and(|upload| upload.len() > 1 << 20);
            let fails = request.method == "PUT" && large && one_less(&mut shared.faults().fail_to_store);
            let mut state = shared.state();
            let size = state.uploads.get(id).map_or(0, Vec::len);
            if request.method == "PATCH" {
                drop(state);
                return Some(Response::new(202).with("Location", location(id)).with("Range", said(size)));
            }
            if fails {
                return Some(error(500, "UNKNOWN", "the storage has hiccups"));
            }
            let bytes = state.uploads.remove(id).unwrap_or_default();
            let digest = request.parameter("digest").and_then(|text| text.parse::<Digest>().ok());
            if digest != Some(Digest::of(&bytes)) {
                return Some(error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"));
            }
            let digest = Digest::of(&bytes);
            state.repositories.entry(name.to_owned()).or_default().blobs.insert(digest, Arc::new(bytes));
            drop(state);
            if one_less(&mut shared.faults().lose_answers) {
                return None;
            }
            let said = shared.faults().stored_digest.clone().unwrap_or(digest.to_string());
            Some(Response::new(201).with("Docker-Content-Digest", said))
        }
        _ => Some(Response::new(405)),
    }
}

/// Whether a fault was left; one is used up.
fn one_less(times: &mut usize) -> bool {
    let left = *times > 0;
    *times = times.saturating_sub(1);
    left
}

fn begin(shared: &Shared, name: &str, request: &Request, location: &dyn Fn(&str) -> String) -> Response {
    let mount = request.parameter("mount").and_then(|text| text.parse::<Digest>().ok());
    if let (Some(digest), Some(from), false) = (mount, request.parameter("from"), shared.faults().no_mount) {
        let mut state = shared.state();
        let found = state.repositories.get(&from).and_then(|repository| repository.blobs.get(&digest).cloned());
        if let Some(bytes) = found {
            state.repositories.entry(name.to_owned()).or_default().blobs.insert(digest, bytes);
            return Response::new(201).with("Docker-Content-Digest", digest.to_string());
        }
    }
    let id = {
        let mut state = shared.state();
        state.next += 1;
        let id = format!("upload-{}", state.next);
        state.uploads.insert(id.clone(), Vec::new());
        id
    };
    let response = Response::new(202).with("Location", location(&id)).with("Range", "0-0");
    match shared.faults().chunk_min {
        Some(least) => response.with("OCI-Chunk-Min-Length", least.to_string()),
        None => response,
    }
}

/// What became of an upload's body.
enum Taken {
    Added,
    /// The connection is to break.
    Broken,
    /// It begins where the upload does not end.
    Elsewhere,
}

/// Adds a body to an upload.
fn take(shared: &Shared, id: &str, request: &mut Request, body: &mut dyn Read) -> Taken {
    let cut = match &mut shared.faults().cut_upload {
        Some((after, times)) if *times > 0 && request.header("content-length") != Some("0") => {
            *times -= 1;
            Some(*after as u64)
        }
        _ => None,
    };
    let mut bytes = Vec::new();
    let whole = body.take(cut.unwrap_or(u64::MAX)).read_to_end(&mut bytes).is_ok();
    request.received = bytes.len() as u64;
    let forget = shared.faults().forget_uploads;
    let mut state = shared.state();
    if (cut.is_some() || !whole) && forget {
        state.uploads.remove(id);
        return Taken::Broken;
    }
    // Of two connections that send to one upload, the one that the other has overtaken is not heard.
    let start = request.header("content-range").and_then(|range| range.split_once('-')?.0.parse::<usize>().ok());
    let start = start.or((request.method == "PUT" && !bytes.is_empty()).then_some(0));
    match state.uploads.get_mut(id) {
        Some(upload) if start.is_none_or(|start| start == upload.len()) => upload.extend_from_slice(&bytes),
        Some(_) if request.method == "PATCH" && whole => return Taken::Elsewhere,
        Some(_) => return Taken::Broken,
        None => {}
    }
    if whole && cut.is_none() { Taken::Added } else { Taken::Broken }
}
