//! The request that is sent: what a browser sends, 437 bytes with eight headers.

/// How many of so many requests are gray: the last of each five.
const GRAY: u64 = 5;

/// The paths that upstreams know beside others, which have an answer of one KiB.
pub(crate) const BIG: &str = "/big";
pub(crate) const ECHO: &str = "/echo";

/// What upstreams and gateways say which lane a request is in.
pub(crate) const LANE: &str = "X-Lane";

/// Tells whether a request of this number is gray.
pub(crate) const fn is_gray(number: u64) -> bool {
    number % GRAY == GRAY - 1
}

/// Returns the bytes of a request.
pub(crate) fn request(path: &str, gray: bool) -> Vec<u8> {
    let lane = if gray { format!("{LANE}: gray\r\n") } else { String::new() };
    let user = if gray { 2 } else { 1 };
    format!(
        "GET {path} HTTP/1.1\r\n\
         Host: shop.example.com\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
         Chrome/120.0.0.0 Safari/537.36\r\n\
         Accept: application/json, text/plain, */*\r\n\
         Accept-Language: en-US,en;q=0.9\r\n\
         Accept-Encoding: gzip, deflate, br\r\n\
         Referer: https://shop.example.com/catalog/list?page=3\r\n\
         Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; tracking=zyxwvutsrqponmlk\r\n\
         X-User-Id: {user:08}\r\n\
         {lane}\r\n"
    )
    .into_bytes()
}
