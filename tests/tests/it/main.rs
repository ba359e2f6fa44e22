//! The whole system on 127.0.0.1.

mod cli;
mod demo;
mod edge;
mod nacos;
mod tidy;
