use std::net::{Ipv4Addr, TcpListener};

/// Returns a port such that it and the ports at these distances are free now.
pub fn free_port(distances: &[i32]) -> u16 {
    loop {
        let port = fastrand::u16(12_000..28_000);
        let free = |distance: &i32| {
            let port = u16::try_from(i32::from(port) + distance).unwrap_or_default();
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        };
        if std::iter::once(&0).chain(distances).all(free) {
            return port;
        }
    }
}
