//! A bare TLS echo: what comes is sent back, and nothing else happens.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::stats::Latencies;
use crate::tls::{self, Certificate};
use crate::waxwing::api::dial;
use crate::work::clock::{Clock, Clocked};
use crate::{Outcome, process};

const NAME: &str = "echo.example";

/// Serves until it is killed; writes its address and certificate into `folder`. This is the child's side.
///
/// # Errors
/// When it cannot listen.
pub async fn serve(folder: &Path) -> Outcome<()> {
    let certificate = Certificate::make(&[NAME])?;
    let acceptor = TlsAcceptor::from(certificate.server()?);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    std::fs::write(folder.join("certificate.pem"), &certificate.pem)?;
    std::fs::write(folder.join("address.new"), listener.local_addr()?.to_string())?;
    std::fs::rename(folder.join("address.new"), folder.join("address"))?;
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // Whoever goes away has had enough.
            drop(echo(acceptor, tcp).await);
        });
    }
}

async fn echo(acceptor: TlsAcceptor, tcp: TcpStream) -> Outcome<()> {
    let mut tls = acceptor.accept(tcp).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let n = tls.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..n).filter(|b| !b.is_empty()) else { return Ok(()) };
        tls.write_all(bytes).await?;
        tls.flush().await?;
    }
}

/// Runs `connections` in a closed loop with messages of `bytes`.
///
/// # Errors
/// When the child cannot be started.
pub async fn measure(
    folder: &Path,
    connections: usize,
    bytes: usize,
    time: (Duration, Duration),
) -> Outcome<Clocked> {
    std::fs::create_dir_all(folder)?;
    let mut command = Command::new(process::program("waxwing-bench")?);
    command.arg("--serve-echo").arg(folder);
    let mut child = process::spawn(command, &folder.join("log"))?;
    let address = loop {
        if let Some(status) = child.try_wait()? {
            return crate::failed(format!("the echo ended with {status}"));
        }
        let text = std::fs::read_to_string(folder.join("address")).unwrap_or_default();
        if let Ok(address) = text.parse() {
            break address;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let certificate = CertificateDer::from_pem_file(folder.join("certificate.pem"))?;
    let config = tls::client(&certificate)?;
    let clock = Clock::new(child.id().into_iter().collect());
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let mut tls = dial(address, NAME, config.clone()).await?;
        let (clock, counter) = (clock.clone(), clock.counter());
        tasks.push(tokio::spawn(async move { bounce(&mut tls, &clock, &counter, bytes).await }));
    }
    let mut clocked = clock.run(time.0, time.1).await;
    for task in tasks {
        clocked.latencies.add(&task.await??)?;
    }
    process::kill(&mut child).await;
    Ok(clocked)
}

async fn bounce(
    tls: &mut tokio_rustls::client::TlsStream<TcpStream>,
    clock: &Clock,
    counter: &Arc<AtomicU64>,
    bytes: usize,
) -> Outcome<Latencies> {
    let mut latencies = Latencies::new()?;
    let (message, mut back) = (vec![b'x'; bytes], vec![0; bytes]);
    while !clock.is_over() {
        let begun = tokio::time::Instant::now();
        tls.write_all(&message).await?;
        tls.flush().await?;
        tls.read_exact(&mut back).await?;
        counter.fetch_add(1, Ordering::Relaxed);
        if clock.counts() {
            latencies.record(begun.elapsed());
        }
    }
    Ok(latencies)
}
