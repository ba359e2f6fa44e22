//! The services A, B and C of the demo of Alibaba's MSE (seed S2), each of which calls the next one
//! and answers with the way: `A[10.0.0.1] -> B[10.0.0.2] -> C[10.0.0.3]`. C produces a message on each call,
//! which A consumes by calling B, which calls C, once more.

mod grpc;
mod link;
mod messages;

pub use self::grpc::GrpcLink;
pub use self::link::{Astray, Link, Transport, chain};
pub use self::messages::Messages;
