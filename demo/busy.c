/* What keeps a busy demo guest busy. Usage: busy NAME REWRITES_MIB COUNTS
 *
 * REWRITES_MIB: writes into every page of so much memory, again and again, on every processor. COUNTS (yes or no): keeps
 * two counters in step, each in a page of its own that begins with "memory-dumps counter A of NAME" (and B), with the
 * counter COUNTER_AT bytes from its start, little-endian. A is raised before B: at every instant A is B, or B and one.
 *
 * The system calls in the loops are there for QEMU's software emulation, whose migration overlooks a page that is written
 * again through the same entry of its TLB (seen with 7.2: cpu_physical_memory_sync_dirty_bitmap clears what it had noted
 * already without resetting the TLB; virsh's own live dump shows it as well). With "pti=on" each call flushes the TLB.
 *
 * Returns when the memory is there and every process writes at its full speed.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, COUNTER_AT = 64, APART = 32 << 20 };

/* Shared, so that it is the same memory after a fork, and touched, so that it is there. */
static char *memory(size_t size) {
  char *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (found == MAP_FAILED) {
    perror("busy");
    exit(1);
  }
  return found;
}

static void flush(void) { syscall(SYS_getppid); }

/* In the first round each page is mapped anew, which is slow; `up` says when it is over. */
static void rewrite(char *pages, size_t size, atomic_long *up) {
  for (unsigned char round = 1;; round++) {
    for (size_t at = 0; at < size; at += PAGE) {
      ((volatile char *)pages)[at] = (char)round;
      if (at % (256 * PAGE) == 0) flush();
    }
    if (round == 1) atomic_fetch_add(up, 1);
  }
}

static volatile uint64_t *counter(char *page, char letter, const char *name) {
  /* Put together here: the text as a whole is in no other place of the guest's memory. */
  snprintf(page, COUNTER_AT, "memory-dumps counter %c of %s", letter, name);
  return (volatile uint64_t *)(page + COUNTER_AT);
}

static void count(char *pages, const char *name) {
  volatile uint64_t *a = counter(pages, 'A', name), *b = counter(pages + APART, 'B', name);
  for (;;) { /* volatile: neither left out nor exchanged; the processor's own order is enough for one processor */
    *a += 1;
    flush();
    *b += 1;
    flush();
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  size_t size = (size_t)atoi(argv[2]) << 20;
  signal(SIGCHLD, SIG_IGN);
  if (size != 0) {
    char *pages = memory(size);
    atomic_long *up = (atomic_long *)memory(PAGE);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    for (long cpu = 0; cpu < cpus; cpu++)
      if (fork() == 0) rewrite(pages, size, up);
    while (atomic_load(up) < cpus) usleep(1000);
    munmap(pages, size);
  }
  if (strcmp(argv[3], "yes") == 0) {
    char *pages = memory(APART + PAGE);
    if (fork() == 0) count(pages, argv[1]);
    /* The first steps are made before we return. */
    while (*(volatile uint64_t *)(pages + APART + COUNTER_AT) == 0) usleep(1000);
  }
  return 0;
}
