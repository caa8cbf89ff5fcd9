//! Contenders that run in turn, so that a change of the machine's speed meets all of
//! them, and the table of what they took.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

/// What one run took.
pub struct Measurement {
    cpu: Duration,
    wall: Duration,
}

/// Does its job once more each time.
pub type Job<'a> = Box<dyn FnMut() -> Measurement + 'a>;

/// Runs a process to its end.
pub fn process(mut command: Command) -> Job<'static> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Box::new(move || {
        let (cpu, start) = (cpu_of_children(), Instant::now());
        let status = command.status().expect("it starts");
        let wall = start.elapsed();
        assert!(status.success(), "{command:?}");
        let cpu = cpu_of_children() - cpu;
        Measurement { cpu, wall }
    })
}

/// Runs a process until it has written its first byte, and takes no more of it.
pub fn first_byte(mut command: Command) -> Job<'static> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Box::new(move || {
        let (cpu, start) = (cpu_of_children(), Instant::now());
        let mut child = command.spawn().expect("it starts");
        let mut out = child.stdout.take().expect("a pipe");
        out.read_exact(&mut [0]).expect("a byte");
        let wall = start.elapsed();
        drop(out);
        assert!(child.wait().expect("an end").success(), "{command:?}");
        let cpu = cpu_of_children() - cpu;
        Measurement { cpu, wall }
    })
}

/// Makes this many calls in all, and counts what the calling threads took for each.
pub fn calls<'a>(threads: u32, calls: u32, call: &'a (impl Fn() + Sync)) -> Job<'a> {
    let one_thread = move || {
        let before = cpu_of_this_thread();
        (0..calls / threads).for_each(|_| call());
        cpu_of_this_thread() - before
    };
    Box::new(move || {
        let start = Instant::now();
        let cpu: Duration = thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(one_thread)).collect();
            let ended = all.into_iter().map(|thread| thread.join().expect("calls"));
            ended.sum()
        });
        Measurement { cpu: cpu / calls, wall: start.elapsed() / calls }
    })
}

/// The processor time of all processes that have ended.
fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("a count");
    let both = usage.user_time() + usage.system_time();
    Duration::from_micros(both.tv_sec() as u64 * 1_000_000 + both.tv_usec() as u64)
}

fn cpu_of_this_thread() -> Duration {
    let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
    clock_gettime(clock).expect("a clock").into()
}

/// Runs the contenders in turn and prints the medians of what they took, and the
/// ratios to the first.
pub fn table(title: &str, rounds: usize, mut contenders: Vec<(&str, Job)>) {
    let mut all: Vec<Vec<Measurement>> = contenders.iter().map(|_| Vec::new()).collect();
    // The first round warms up.
    for round in 0..=rounds {
        for ((_, job), all) in contenders.iter_mut().zip(&mut all) {
            let measurement = job();
            if round > 0 {
                all.push(measurement);
            }
        }
    }
    let times = |all: &Vec<Measurement>| [median(all, |one| one.cpu), median(all, |one| one.wall)];
    let medians: Vec<[f64; 2]> = all.iter().map(times).collect();
    println!("\n{title}: medians of {rounds}, and their ratios to the first");
    println!("{:<36} {:>17} {:>17}", "", "CPU", "wall clock");
    for ((name, _), [cpu, wall]) in contenders.iter().zip(&medians) {
        let [cpu_ratio, wall_ratio] = [cpu / medians[0][0], wall / medians[0][1]];
        println!("{name:<36} {cpu:>8.3} ms {cpu_ratio:>5.2} {wall:>8.3} ms {wall_ratio:>5.2}");
    }
}

/// In milliseconds.
fn median(all: &[Measurement], time: impl Fn(&Measurement) -> Duration) -> f64 {
    let mut times: Vec<Duration> = all.iter().map(time).collect();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}
