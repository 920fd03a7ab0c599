package main

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Of this client's own: without it, the group protocol of KIP-848 is not used yet.
const newerProtocol = "opt_in_kafka_next_gen_balancer_beta"

// The times are the member's own in the classic protocol; without them it follows the newer one.
func member(bootstrap, topic, group string, times ...string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	options := []kgo.Opt{
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumeTopics(topic),
		kgo.ConsumerGroup(group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		// Otherwise a partition could go to somebody else between reading its records and committing them.
		kgo.BlockRebalanceOnPoll(),
	}
	if len(times) == 2 {
		options = append(options,
			kgo.SessionTimeout(milliseconds(times[0])),
			kgo.HeartbeatInterval(milliseconds(times[1])),
		)
	} else {
		options = append(options, kgo.WithContext(context.WithValue(context.Background(), newerProtocol, true)))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	output := bufio.NewWriter(os.Stdout)
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, 100)
		if err := fetches.Err0(); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		records := fetches.Records()
		for _, record := range records {
			output.Write(record.Value)
			output.WriteByte('\n')
		}
		output.Flush()
		if len(records) > 0 {
			err := client.CommitRecords(context.Background(), records...)
			// A rebalance may be under way; then somebody else reads these records again.
			taken := errors.Is(err, kerr.IllegalGeneration) || errors.Is(err, kerr.UnknownMemberID) ||
				errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.StaleMemberEpoch) ||
				errors.Is(err, kerr.FencedMemberEpoch)
			if err != nil && !taken {
				return err
			}
		}
		client.AllowRebalance()
	}
	return nil
}

func milliseconds(text string) time.Duration {
	number, err := strconv.Atoi(text)
	if err != nil {
		fail(err)
	}
	return time.Duration(number) * time.Millisecond
}
