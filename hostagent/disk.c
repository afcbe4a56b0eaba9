/* disk.c - see disk.h. Format: QEMU's docs/interop/qcow2.txt. */
#include "disk.h"

#include <endian.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
	CLUSTER = 65536,
	REFTABLE = CLUSTER,     /* cluster 1: where refcount blocks are */
	REFBLOCK = 2 * CLUSTER, /* cluster 2: counts of the first 32768 clusters */
	L1 = 3 * CLUSTER,       /* cluster 3: room for 8192 entries of 256 MiB */
	HEADER = 104,
	L1_COVERS = 256 << 20,
	/* Each L2 entry says which 32nds of its cluster are here. The guest's first 4 KiB then cost
	   4 KiB, not 64 with the rest copied from below: an idle clone's disk is a third. */
	EXTENDED_L2 = 1 << 4,
};

/* clang-format off */
struct header {
	uint32_t magic, version;
	uint64_t backing_offset;
	uint32_t backing_size, cluster_bits;
	uint64_t size;
	uint32_t crypt, l1_size;
	uint64_t l1_offset, reftable_offset;
	uint32_t reftable_clusters, snapshots;
	uint64_t snapshots_offset, incompatible, compatible, autoclear;
	uint32_t refcount_order, header_length;
} __attribute__((packed));
/* clang-format on */
_Static_assert(sizeof(struct header) == HEADER, "qcow2 header");

static int
put(int fd, const void *p, size_t n, off_t at, struct err *e)
{
	ssize_t k = pwrite(fd, p, n, at);

	if (k < 0)
		return err_sys(e, "write disk");
	if ((size_t)k != n)
		return err_set(e, E_NO_SPACE, "write disk: no room");
	return 0;
}

int
disk_overlay(int fd, uint64_t size, const char *backing, struct err *e)
{
	uint64_t reftable = htobe64(REFBLOCK);
	uint16_t counts[4] = { htobe16(1), htobe16(1), htobe16(1), htobe16(1) };
	struct header h = { .magic = htobe32(0x514649fb),
		.version = htobe32(3),
		.cluster_bits = htobe32(16),
		.size = htobe64(size),
		.l1_size = htobe32((size + L1_COVERS - 1) / L1_COVERS),
		.l1_offset = htobe64(L1),
		.reftable_offset = htobe64(REFTABLE),
		.reftable_clusters = htobe32(1),
		.incompatible = htobe64(EXTENDED_L2),
		.refcount_order = htobe32(4),
		.header_length = htobe32(HEADER) };
	size_t len = backing ? strlen(backing) : 0;

	if (!size || size % 512 || size / L1_COVERS >= CLUSTER / 8)
		return err_set(e, E_BAD_INPUT, "no disk of %llu bytes", (unsigned long long)size);
	if (len && len < 1024) {
		/* behind the header: the backing format's extension, the end of extensions, the
		 * name */
		uint32_t ext[6] = { htobe32(0xe2792aca), htobe32(5) };

		memcpy(&ext[2], "qcow2", 5);
		h.backing_offset = htobe64(HEADER + sizeof ext);
		h.backing_size = htobe32(len);
		if (put(fd, ext, sizeof ext, HEADER, e) < 0 ||
		    put(fd, backing, len, HEADER + sizeof ext, e) < 0)
			return -1;
	}
	if (put(fd, &reftable, sizeof reftable, REFTABLE, e) < 0 ||
	    put(fd, counts, sizeof counts, REFBLOCK, e) < 0)
		return -1;
	if (ftruncate(fd, 4 * CLUSTER) < 0)
		return err_sys(e, "write disk");
	return put(fd, &h, sizeof h, 0, e);
}

int
disk_size(int fd, uint64_t *ret, struct err *e)
{
	struct header h;

	if (pread(fd, &h, sizeof h, 0) != sizeof h || h.magic != htobe32(0x514649fb))
		return err_set(e, E_TAMPERED, "not a qcow2 disk");
	*ret = be64toh(h.size);
	return 0;
}

int
disk_room(const char *dir, uint64_t *ret_free, uint64_t *ret_total, struct err *e)
{
	struct statvfs v;

	if (statvfs(dir, &v) < 0)
		return err_sys(e, "%s", dir);
	*ret_free = (uint64_t)v.f_bavail * v.f_frsize;
	*ret_total = (uint64_t)v.f_blocks * v.f_frsize;
	return 0;
}
