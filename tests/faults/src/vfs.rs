//! The bridge to SQLite: a file system that reports what SQLite does with its files to a [`Disk`] and hands the rest to the system's own.
//!
//! The only code of the project that uses pointers. What the disk makes of it (records, failures, crash images) is ordinary code in
//! [`crate::vfs_disk`] and [`crate::vfs_image`].
//!
//! | call | goes to |
//! |---|---|
//! | open, close, write, truncate, delete | the disk is told or asked, then the system's file system does it |
//! | sync | the disk alone: what survives is its business, and no real fsync is waited for |
//! | read, size, locks, shared memory | the system's file system |

#![expect(unsafe_code, reason = "SQLite calls a file system through tables of C functions")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use libsqlite3_sys as ffi;
use tests::trouble::During as _;
use tests::{Outcome, Trouble};

use crate::vfs_disk::{Class, Denied, Disk, Opened};

/// Registers a file system that lies over `disk`, under the name that [`Disk::vfs`] gives, and `unasked` also for whoever names none. It
/// stays until the process ends.
///
/// # Errors
/// When SQLite refuses it.
pub(crate) fn register(disk: &Disk, unasked: bool) -> Outcome<()> {
    let name = CString::new(disk.vfs()).during("the name of a file system")?.into_raw();
    // SAFETY: SQLite allows this at any time; it begins with setting itself up.
    let system = unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) };
    if system.is_null() {
        return Err(Trouble::new("SQLite has no file system `unix`"));
    }
    // SAFETY: not null, and SQLite never changes or frees a file system that is registered.
    let mut ours = unsafe { *system };
    // All functions but these two come from `unix` as they are: they do not look at the file system they are called through.
    ours.zName = name;
    ours.pNext = ptr::null_mut();
    ours.pAppData = Box::into_raw(Box::new(Below { disk: disk.clone(), system })).cast();
    ours.szOsFile += HANDLE_BYTES;
    ours.xOpen = Some(open);
    ours.xDelete = Some(delete);
    // SAFETY: what it points to was leaked above and so outlives all use; `name` too.
    let code =
        unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), c_int::from(unasked)) };
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(Trouble::new(format!("SQLite: {code}"))) }
}

/// What a file system of ours is made of.
struct Below {
    disk: Disk,
    system: *mut ffi::sqlite3_vfs,
}

/// A file as SQLite holds it; the system's file lies right behind it in the same memory.
#[repr(C)]
struct Handle {
    /// What SQLite knows of it: must come first.
    base: ffi::sqlite3_file,
    below: *const Below,
    /// Which file it is for the disk; none for temporary files.
    opened: *mut Opened,
}

const HANDLE_BYTES: c_int = {
    assert!(size_of::<Handle>() == 24 && align_of::<Handle>() == 8);
    24
};

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // 2: shared memory, but no memory map of the file, past which nothing would be seen.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The disk of a file system of ours.
///
/// # Safety
/// `vfs` must be one that [`register`] made.
unsafe fn below<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Below {
    // SAFETY: `register` put it there and never frees it.
    unsafe { &*(*vfs).pAppData.cast::<Below>() }
}

/// The system's file behind ours.
fn system_file(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // Only an address is made here; SQLite gave each file room for both.
    file.cast::<Handle>().wrapping_add(1).cast()
}

/// The disk and the file on it, unless it is a temporary one.
///
/// # Safety
/// `file` must be one that [`open`] made and [`close`] did not yet end; SQLite never uses one from two threads at once.
unsafe fn tracked<'a>(file: *mut ffi::sqlite3_file) -> Option<(&'a Disk, &'a mut Opened)> {
    // SAFETY: `open` has filled in all of it.
    unsafe {
        let handle = &*file.cast::<Handle>();
        handle.opened.as_mut().map(|opened| (&(*handle.below).disk, opened))
    }
}

/// The name of a file without its folder.
///
/// # Safety
/// `name` must be null or end with a zero byte.
unsafe fn name_of<'a>(name: *const c_char) -> Option<&'a Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(name) }.to_str().ok().map(Path::new)
}

fn code(denied: Denied) -> c_int {
    match denied {
        Denied::Full => ffi::SQLITE_FULL,
        Denied::Write => ffi::SQLITE_IOERR_WRITE,
        Denied::Sync => ffi::SQLITE_IOERR_FSYNC,
    }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls with the file system that was registered, a name that ends, and memory of `szOsFile` bytes at `file`.
    unsafe {
        let below = below(vfs);
        let path = name_of(name).filter(|path| below.disk.holds(path));
        let existed = path.is_some_and(|path| below.disk.look(path));
        let real = system_file(file);
        (*file).pMethods = ptr::null();
        let Some(open) = (*below.system).xOpen else { return ffi::SQLITE_CANTOPEN };
        let result = open(below.system, name, real, flags, flags_out);
        if result != ffi::SQLITE_OK {
            return result;
        }
        let class = if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            Class::Database
        } else if flags & ffi::SQLITE_OPEN_WAL != 0 {
            Class::Wal
        } else {
            Class::Journal
        };
        let opened =
            path.map(|path| Box::into_raw(Box::new(below.disk.open(path, class, existed))));
        let handle = Handle {
            base: ffi::sqlite3_file { pMethods: &raw const METHODS },
            below,
            opened: opened.unwrap_or(ptr::null_mut()),
        };
        ptr::write(file.cast::<Handle>(), handle);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_folder: c_int,
) -> c_int {
    // SAFETY: SQLite calls with the file system that was registered and a name that ends.
    unsafe {
        let below = below(vfs);
        let Some(delete) = (*below.system).xDelete else { return ffi::SQLITE_IOERR_DELETE };
        let result = delete(below.system, name, 0);
        let path = name_of(name).filter(|path| below.disk.holds(path));
        if let (ffi::SQLITE_OK, Some(path)) = (result, path) {
            below.disk.delete(path, sync_folder != 0);
        }
        result
    }
}

/// Calls the same method of the system's file.
macro_rules! forward {
    ($file:ident, $method:ident $(, $arg:expr)*) => {{
        let real = system_file($file);
        // SAFETY: SQLite calls with a file that `open` made, so that the system's one behind it is open too, and with the arguments that
        // the method asks for.
        unsafe {
            match (*(*real).pMethods).$method {
                Some(method) => method(real $(, $arg)*),
                None => ffi::SQLITE_IOERR,
            }
        }
    }};
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let result = forward!(file, xClose);
    // SAFETY: SQLite closes a file once; `opened` came from a box.
    unsafe {
        let handle = &mut *file.cast::<Handle>();
        let opened = std::mem::replace(&mut handle.opened, ptr::null_mut());
        if !opened.is_null() {
            drop(Box::from_raw(opened));
        }
    }
    result
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite calls with a file that `open` made and `amount` bytes at `data`.
    let (tracked, bytes) = unsafe {
        let bytes = usize::try_from(amount).unwrap_or(0);
        (tracked(file), std::slice::from_raw_parts(data.cast::<u8>(), bytes))
    };
    let Some((disk, opened)) = tracked else {
        return forward!(file, xWrite, data, amount, offset);
    };
    let taken = disk.write(opened, u64::try_from(offset).unwrap_or(0), bytes);
    let part = c_int::try_from(taken.bytes).unwrap_or(0);
    if part > 0 {
        let result = forward!(file, xWrite, data, part, offset);
        if result != ffi::SQLITE_OK {
            return result;
        }
    }
    taken.denied.map_or(ffi::SQLITE_OK, code)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let result = forward!(file, xTruncate, size);
    // SAFETY: SQLite calls with a file that `open` made.
    if let (ffi::SQLITE_OK, Some((disk, opened))) = (result, unsafe { tracked(file) }) {
        disk.truncate(opened, u64::try_from(size).unwrap_or(0));
    }
    result
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite calls with a file that `open` made.
    match unsafe { tracked(file) } {
        Some((disk, opened)) => disk.sync(opened).map_or_else(code, |()| ffi::SQLITE_OK),
        None => ffi::SQLITE_OK,
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    forward!(file, xRead, out, amount, offset)
}

unsafe extern "C" fn size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    forward!(file, xFileSize, out)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    forward!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    forward!(file, xCheckReservedLock, out)
}

unsafe extern "C" fn file_control(
    file: *mut ffi::sqlite3_file,
    what: c_int,
    argument: *mut c_void,
) -> c_int {
    forward!(file, xFileControl, what, argument)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    forward!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    forward!(file, xShmMap, page, bytes, extend, out)
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    forward!(file, xShmLock, first, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    let real = system_file(file);
    // SAFETY: as in `forward`.
    unsafe {
        if let Some(barrier) = (*(*real).pMethods).xShmBarrier {
            barrier(real);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    forward!(file, xShmUnmap, delete)
}
