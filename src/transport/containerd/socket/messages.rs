//! The messages of containerd's API that imgmv uses (`api/services` and `api/types` of containerd), with the fields that
//! imgmv uses; other fields are skipped. The numbers are the API's and never change.

use bytes::Bytes;
use prost::Message;
use std::collections::HashMap;

/// `google.protobuf.FieldMask`
#[derive(Clone, PartialEq, Message)]
pub struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    pub paths: Vec<String>,
}

/// `types.Descriptor`
#[derive(Clone, PartialEq, Message)]
pub struct Descriptor {
    #[prost(string, tag = "1")]
    pub media_type: String,
    #[prost(string, tag = "2")]
    pub digest: String,
    #[prost(int64, tag = "3")]
    pub size: i64,
}

/// `types.Platform`
#[derive(Clone, PartialEq, Message)]
pub struct Platform {
    #[prost(string, tag = "1")]
    pub os: String,
    #[prost(string, tag = "2")]
    pub architecture: String,
    #[prost(string, tag = "3")]
    pub variant: String,
}

/// `types.Mount`
#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub source: String,
    #[prost(string, tag = "3")]
    pub target: String,
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `services.namespaces.v1.ListNamespacesRequest`
#[derive(Clone, PartialEq, Message)]
pub struct ListNamespacesRequest {}

/// `services.namespaces.v1.Namespace`
#[derive(Clone, PartialEq, Message)]
pub struct Namespace {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(map = "string, string", tag = "2")]
    pub labels: HashMap<String, String>,
}

/// `services.images.v1.ListImagesRequest`
#[derive(Clone, PartialEq, Message)]
pub struct ListImagesRequest {
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// `services.images.v1.Image`
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub target: Option<Descriptor>,
}

/// `services.images.v1.CreateImageRequest`; `UpdateImageRequest` with `update_mask`.
#[derive(Clone, PartialEq, Message)]
pub struct PutImageRequest {
    #[prost(message, optional, tag = "1")]
    pub image: Option<Image>,
    #[prost(message, optional, tag = "2")]
    pub update_mask: Option<FieldMask>,
}

/// `services.content.v1.ListContentRequest`
#[derive(Clone, PartialEq, Message)]
pub struct ListContentRequest {
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// `services.content.v1.Info`
#[derive(Clone, PartialEq, Message)]
pub struct ContentInfo {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub size: i64,
    #[prost(map = "string, string", tag = "5")]
    pub labels: HashMap<String, String>,
}

/// `services.content.v1.InfoRequest`, and `DeleteContentRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ContentRequest {
    #[prost(string, tag = "1")]
    pub digest: String,
}

/// `services.content.v1.InfoResponse`
#[derive(Clone, PartialEq, Message)]
pub struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    pub info: Option<ContentInfo>,
}

/// `services.content.v1.UpdateRequest`
#[derive(Clone, PartialEq, Message)]
pub struct UpdateContentRequest {
    #[prost(message, optional, tag = "1")]
    pub info: Option<ContentInfo>,
    #[prost(message, optional, tag = "2")]
    pub update_mask: Option<FieldMask>,
}

/// `services.content.v1.ReadContentRequest`
#[derive(Clone, PartialEq, Message)]
pub struct ReadRequest {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// In bytes; 0: to the end.
    #[prost(int64, tag = "3")]
    pub size: i64,
}

/// `services.content.v1.ReadContentResponse`
#[derive(Clone, PartialEq, Message)]
pub struct ReadResponse {
    #[prost(int64, tag = "1")]
    pub offset: i64,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

/// `services.content.v1.WriteAction`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WriteAction {
    /// Returns the state of the ingest, and takes its lock.
    Stat = 0,
    /// Writes at an offset.
    Write = 1,
    /// Checks and stores the blob.
    Commit = 2,
}

/// `services.content.v1.WriteContentRequest`
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    #[prost(string, tag = "2")]
    pub reference: String,
    #[prost(int64, tag = "3")]
    pub total: i64,
    #[prost(string, tag = "4")]
    pub expected: String,
    #[prost(int64, tag = "5")]
    pub offset: i64,
    #[prost(bytes = "bytes", tag = "6")]
    pub data: Bytes,
    #[prost(map = "string, string", tag = "7")]
    pub labels: HashMap<String, String>,
}

/// `services.content.v1.WriteContentResponse`
#[derive(Clone, PartialEq, Message)]
pub struct WriteResponse {
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    #[prost(int64, tag = "4")]
    pub offset: i64,
    #[prost(string, tag = "6")]
    pub digest: String,
}

/// `services.content.v1.AbortRequest`
#[derive(Clone, PartialEq, Message)]
pub struct AbortRequest {
    #[prost(string, tag = "1")]
    pub reference: String,
}

/// `services.leases.v1.CreateRequest`
#[derive(Clone, PartialEq, Message)]
pub struct CreateLeaseRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(map = "string, string", tag = "3")]
    pub labels: HashMap<String, String>,
}

/// `services.leases.v1.DeleteRequest`
#[derive(Clone, PartialEq, Message)]
pub struct DeleteLeaseRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(bool, tag = "2")]
    pub sync: bool,
}

/// `services.introspection.v1.PluginsRequest`
#[derive(Clone, PartialEq, Message)]
pub struct PluginsRequest {
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

/// `services.introspection.v1.Plugin`
#[derive(Clone, PartialEq, Message)]
pub struct Plugin {
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(message, repeated, tag = "4")]
    pub platforms: Vec<Platform>,
    #[prost(message, optional, tag = "7")]
    pub init_error: Option<RpcStatus>,
}

/// `services.snapshots.v1.PrepareSnapshotRequest`
#[derive(Clone, PartialEq, Message)]
pub struct PrepareSnapshotRequest {
    #[prost(string, tag = "1")]
    pub snapshotter: String,
    #[prost(string, tag = "2")]
    pub key: String,
    #[prost(string, tag = "3")]
    pub parent: String,
    #[prost(map = "string, string", tag = "4")]
    pub labels: HashMap<String, String>,
}

/// `services.snapshots.v1.PrepareSnapshotResponse`
#[derive(Clone, PartialEq, Message)]
pub struct PrepareSnapshotResponse {
    #[prost(message, repeated, tag = "1")]
    pub mounts: Vec<Mount>,
}

/// `services.snapshots.v1.CommitSnapshotRequest`
#[derive(Clone, PartialEq, Message)]
pub struct CommitSnapshotRequest {
    #[prost(string, tag = "1")]
    pub snapshotter: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub key: String,
}

/// `services.snapshots.v1.StatSnapshotRequest`, and `RemoveSnapshotRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotRequest {
    #[prost(string, tag = "1")]
    pub snapshotter: String,
    #[prost(string, tag = "2")]
    pub key: String,
}

/// `services.diff.v1.ApplyRequest`
#[derive(Clone, PartialEq, Message)]
pub struct ApplyRequest {
    #[prost(message, optional, tag = "1")]
    pub diff: Option<Descriptor>,
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<Mount>,
}

/// `services.diff.v1.ApplyResponse`
#[derive(Clone, PartialEq, Message)]
pub struct ApplyResponse {
    #[prost(message, optional, tag = "1")]
    pub applied: Option<Descriptor>,
}
