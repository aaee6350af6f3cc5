// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * What the steps need and busybox does not have: kernels for kexec, keys, a rule of nf_tables. One program, linked statically.
 *
 *	vtl0-tool kexec KERNEL COMMAND_LINE	loads a kernel, without an initramfs; `crash`: for a crash
 *	vtl0-tool kexec-unload			and forgets it; `crash-unload`
 *	vtl0-tool key RING FILE			adds a certificate to a keyring, by its name in /proc/keys
 *	vtl0-tool rule				makes a table, a chain and a rule that counts
 *
 * It ends with 0, or prints the error and ends with 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int failed(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	return 1;
}

static int load_kernel(const char *kernel, const char *line, unsigned long flags)
{
	int file = open(kernel, O_RDONLY);

	if (file < 0)
		return failed(kernel);
	return syscall(SYS_kexec_file_load, file, -1, strlen(line) + 1, line,
		       KEXEC_FILE_NO_INITRAMFS | flags) ?
		failed("kexec_file_load") : 0;
}

static int unload_kernel(unsigned long flags)
{
	return syscall(SYS_kexec_file_load, -1, -1, 0, NULL, KEXEC_FILE_UNLOAD | flags) ? failed("kexec_file_load") : 0;
}

/* The number of a keyring, which the first column of /proc/keys has in hexadecimal. */
static long ring_named(const char *name)
{
	char line[512];
	FILE *keys = fopen("/proc/keys", "r");
	long found = 0;

	while (keys && !found && fgets(line, sizeof(line), keys)) {
		char *at = strstr(line, name);

		if (at && strstr(line, " keyring ") && at[strlen(name)] == ':')
			found = strtol(line, NULL, 16);
	}
	if (keys)
		fclose(keys);
	return found;
}

static int add_key(const char *ring, const char *path)
{
	static char bytes[65536];
	long number = ring_named(ring);
	int file = open(path, O_RDONLY);
	ssize_t size = file < 0 ? -1 : read(file, bytes, sizeof(bytes));

	if (size < 0)
		return failed(path);
	if (!number) {
		printf("%s is not in /proc/keys\n", ring);
		return 1;
	}
	return syscall(SYS_add_key, "asymmetric", "", bytes, size, number) < 0 ? failed("add_key") : 0;
}

/* Messages to nf_tables, under construction. */
static struct {
	_Alignas(8) char bytes[4096];
	size_t size;
	unsigned int sequence;
} batch;

static void *append(const void *what, size_t size)
{
	void *at = batch.bytes + batch.size;

	memset(at, 0, NLA_ALIGN(size));
	if (what)
		memcpy(at, what, size);
	batch.size += NLA_ALIGN(size);
	return at;
}

static struct nlmsghdr *message(int type, int flags)
{
	struct nlmsghdr *header = append(NULL, sizeof(*header));
	struct nfgenmsg *family = append(NULL, sizeof(*family));
	int is_batch = type == NFNL_MSG_BATCH_BEGIN || type == NFNL_MSG_BATCH_END;

	header->nlmsg_type = is_batch ? type : NFNL_SUBSYS_NFTABLES << 8 | type;
	header->nlmsg_flags = NLM_F_REQUEST | flags;
	header->nlmsg_seq = batch.sequence++;
	family->nfgen_family = is_batch ? AF_UNSPEC : NFPROTO_INET;
	family->version = NFNETLINK_V0;
	family->res_id = is_batch ? htons(NFNL_SUBSYS_NFTABLES) : 0;
	return header;
}

static void end_message(struct nlmsghdr *header)
{
	header->nlmsg_len = batch.bytes + batch.size - (char *)header;
}

static void text(int type, const char *value)
{
	struct nlattr *attribute = append(NULL, sizeof(*attribute));

	attribute->nla_type = type;
	attribute->nla_len = sizeof(*attribute) + strlen(value) + 1;
	append(value, strlen(value) + 1);
}

static void number(int type, unsigned int value)
{
	struct nlattr *attribute = append(NULL, sizeof(*attribute));
	unsigned int big = htonl(value);

	attribute->nla_type = type;
	attribute->nla_len = sizeof(*attribute) + sizeof(big);
	append(&big, sizeof(big));
}

static struct nlattr *nest(int type)
{
	struct nlattr *attribute = append(NULL, sizeof(*attribute));

	attribute->nla_type = type | NLA_F_NESTED;
	return attribute;
}

static void end_nest(struct nlattr *attribute)
{
	attribute->nla_len = batch.bytes + batch.size - (char *)attribute;
}

static void build_rule(void)
{
	struct nlmsghdr *header;
	struct nlattr *hook, *list, *element;

	end_message(message(NFNL_MSG_BATCH_BEGIN, 0));
	header = message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK);
	text(NFTA_TABLE_NAME, "vtl0");
	end_message(header);
	header = message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK);
	text(NFTA_CHAIN_TABLE, "vtl0");
	text(NFTA_CHAIN_NAME, "input");
	text(NFTA_CHAIN_TYPE, "filter");
	hook = nest(NFTA_CHAIN_HOOK);
	number(NFTA_HOOK_HOOKNUM, NF_INET_LOCAL_IN);
	number(NFTA_HOOK_PRIORITY, 0);
	end_nest(hook);
	end_message(header);
	header = message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK);
	text(NFTA_RULE_TABLE, "vtl0");
	text(NFTA_RULE_CHAIN, "input");
	list = nest(NFTA_RULE_EXPRESSIONS);
	element = nest(NFTA_LIST_ELEM);
	text(NFTA_EXPR_NAME, "counter");
	end_nest(element);
	end_nest(list);
	end_message(header);
	end_message(message(NFNL_MSG_BATCH_END, 0));
}

/* Three messages ask for an answer, and each must be a success. */
static int add_rule(void)
{
	_Alignas(8) char answer[8192];
	int answers = 0, connection = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);

	build_rule();
	if (connection < 0 || send(connection, batch.bytes, batch.size, 0) < 0)
		return failed("netlink");
	while (answers < 3) {
		ssize_t size = recv(connection, answer, sizeof(answer), 0);
		struct nlmsghdr *header;

		if (size < 0)
			return failed("netlink");
		for (header = (void *)answer; NLMSG_OK(header, size); header = NLMSG_NEXT(header, size)) {
			struct nlmsgerr *error = NLMSG_DATA(header);

			if (header->nlmsg_type != NLMSG_ERROR)
				continue;
			if (error->error) {
				errno = -error->error;
				return failed("nf_tables");
			}
			answers++;
		}
	}
	return 0;
}

int main(int count, char **words)
{
	const char *what = count > 1 ? words[1] : "";

	if (!strcmp(what, "kexec") && count == 4)
		return load_kernel(words[2], words[3], 0);
	if (!strcmp(what, "kexec-unload"))
		return unload_kernel(0);
	if (!strcmp(what, "crash") && count == 4)
		return load_kernel(words[2], words[3], KEXEC_FILE_ON_CRASH);
	if (!strcmp(what, "crash-unload"))
		return unload_kernel(KEXEC_FILE_ON_CRASH);
	if (!strcmp(what, "key") && count == 4)
		return add_key(words[2], words[3]);
	if (!strcmp(what, "rule"))
		return add_rule();
	puts("kexec KERNEL COMMAND_LINE | kexec-unload | crash KERNEL COMMAND_LINE | crash-unload | key RING FILE | rule");
	return 2;
}
