//! Small pages for this process.
//!
//! mimalloc asks for huge pages, and each of its areas then takes 2 MB as soon as one byte of it is used: 7 MB more for an
//! idle node, at the same throughput. It does so before `main` begins, hence the place of this call.

#![cfg(target_os = "linux")]

use std::ffi::{c_int, c_ulong};

/// Called by the loader ahead of mimalloc's own constructor, whose priority is 101.
#[used]
#[expect(unsafe_code, reason = "the one way to be called before the allocator")]
// SAFETY: the section holds pointers to functions without arguments that are called once each, and this is one. Nothing
// of the standard library is used, which may not be ready yet.
#[unsafe(link_section = ".init_array.00100")]
static BEFORE_ALLOCATING: extern "C" fn() = forgo_huge_pages;

#[expect(unsafe_code, reason = "nothing safe makes this system call")]
unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
}

extern "C" fn forgo_huge_pages() {
    const PR_SET_THP_DISABLE: c_int = 41;
    let (on, none): (c_ulong, c_ulong) = (1, 0);
    // SAFETY: prctl(2) of the C library, with the five arguments that this option takes, all of them numbers. A kernel that
    // does not know the option says so and changes nothing.
    #[expect(unsafe_code, reason = "nothing safe makes this system call")]
    unsafe {
        prctl(PR_SET_THP_DISABLE, on, none, none, none);
    }
}
