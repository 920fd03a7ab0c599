package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

type check func(ctx context.Context, bootstrap, name string) error

var checks = map[string]check{
	"compression-none":   compression(kgo.NoCompression()),
	"compression-gzip":   compression(kgo.GzipCompression()),
	"compression-snappy": compression(kgo.SnappyCompression()),
	"compression-lz4":    compression(kgo.Lz4Compression()),
	"compression-zstd":   compression(kgo.ZstdCompression()),
	"acks-0":             acks(kgo.NoAck()),
	"acks-1":             acks(kgo.LeaderAck()),
	"acks-all":           acks(kgo.AllISRAcks()),
	"fields":             fields,
	"keys":               keys,
	"large-batches":      largeBatches,
	"oversized":          oversized,
	"idempotent":         idempotent,
	"resume":             resume,
	"offset-metadata":    offsetMetadata,
	"times":              times,
	"unknown-topic":      unknownTopic,
	"past-the-end":       pastTheEnd,
	"topics":             topics,
	"impossible-topics":  impossibleTopics,
	"partitions":         partitions,
	"configs":            configs,
	"groups":             groups,
	"delete-records":     deleteRecords,
	"list-offsets":       listOffsets,
	"cluster":            cluster,
}

// Within the week that a topic keeps its records by default.
var start = time.Now().Add(-time.Hour).Truncate(time.Millisecond)

func connect(bootstrap string, options ...kgo.Opt) (*kgo.Client, *kadm.Client, error) {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap)}, options...)...)
	if err != nil {
		return nil, nil, err
	}
	return client, kadm.NewClient(client), nil
}

// withTopic makes a topic and gives a client for it.
func withTopic(
	ctx context.Context, bootstrap, name string, partitions int32, do func(*kgo.Client, *kadm.Client) error,
	options ...kgo.Opt,
) error {
	client, admin, err := connect(bootstrap, options...)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := admin.CreateTopic(ctx, partitions, 1, nil, name); err != nil {
		return err
	}
	if err := untilThere(ctx, admin, name, int(partitions)); err != nil {
		return err
	}
	return do(client, admin)
}

// until looks again until it finds what it looks for; the context's end is the end of patience.
func until(ctx context.Context, what string, look func() (bool, error)) error {
	for {
		found, err := look()
		if err != nil || found {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not in time", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func untilThere(ctx context.Context, admin *kadm.Client, name string, partitions int) error {
	return until(ctx, "topic "+name, func() (bool, error) {
		found, err := admin.ListTopics(ctx, name)
		if err != nil {
			return false, err
		}
		for _, partition := range found[name].Partitions {
			if partition.Err != nil || partition.Leader < 0 {
				return false, nil
			}
		}
		return len(found[name].Partitions) == partitions, nil
	})
}

func numbered(topic string, count int) []*kgo.Record {
	records := make([]*kgo.Record, count)
	for number := range records {
		value := fmt.Sprintf("%d:%s", number, strings.Repeat("text ", 100))
		records[number] = &kgo.Record{Topic: topic, Value: []byte(value)}
	}
	return records
}

// read gives the first count records of a partition.
func read(ctx context.Context, bootstrap, topic string, partition int32, offset int64, count int) ([]*kgo.Record, error) {
	place := map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(offset)}}
	reader, _, err := connect(bootstrap, kgo.ConsumePartitions(place))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	return take(ctx, reader, count)
}

func take(ctx context.Context, reader *kgo.Client, count int) ([]*kgo.Record, error) {
	var records []*kgo.Record
	for len(records) < count {
		fetches := reader.PollRecords(ctx, count-len(records))
		for _, failed := range fetches.Errors() {
			return nil, fmt.Errorf("after %d of %d records: %w", len(records), count, failed.Err)
		}
		records = append(records, fetches.Records()...)
	}
	return records, nil
}

func sameValues(sent, came []*kgo.Record) error {
	for index, record := range sent {
		if !bytes.Equal(record.Value, came[index].Value) || came[index].Offset != int64(index) {
			return fmt.Errorf("record %d came as %q at offset %d", index, came[index].Value, came[index].Offset)
		}
	}
	return nil
}

func wanted(what string, want, got any) error {
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("%s: wanted %v, got %v", what, want, got)
	}
	return nil
}

func wantedError(what string, want, got error) error {
	if !errors.Is(got, want) {
		return fmt.Errorf("%s: wanted %v, got %v", what, want, got)
	}
	return nil
}

func roundTrip(ctx context.Context, bootstrap, name string, count int, options ...kgo.Opt) error {
	return withTopic(ctx, bootstrap, name, 1, func(client *kgo.Client, _ *kadm.Client) error {
		sent := numbered(name, count)
		if err := client.ProduceSync(ctx, sent...).FirstErr(); err != nil {
			return err
		}
		came, err := read(ctx, bootstrap, name, 0, 0, count)
		if err != nil {
			return err
		}
		return sameValues(sent, came)
	}, options...)
}

func compression(codec kgo.CompressionCodec) check {
	return func(ctx context.Context, bootstrap, name string) error {
		return roundTrip(ctx, bootstrap, name, 500, kgo.ProducerBatchCompression(codec))
	}
}

func acks(acks kgo.Acks) check {
	return func(ctx context.Context, bootstrap, name string) error {
		return roundTrip(ctx, bootstrap, name, 300, kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite())
	}
}

func idempotent(ctx context.Context, bootstrap, name string) error {
	// Small batches, and so many of them in flight.
	return roundTrip(ctx, bootstrap, name, 1000, kgo.ProducerBatchMaxBytes(2000))
}

func largeBatches(ctx context.Context, bootstrap, name string) error {
	return roundTrip(
		ctx, bootstrap, name, 20_000, kgo.ProducerBatchMaxBytes(1_000_000), kgo.ProducerLinger(100*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
}

func fields(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 1, func(client *kgo.Client, _ *kadm.Client) error {
		headers := []kgo.RecordHeader{{Key: "twice", Value: []byte("1")}, {Key: "twice", Value: []byte("2")}, {Key: "null"}}
		sent := []*kgo.Record{
			{Topic: name, Key: []byte("key"), Value: []byte("value"), Headers: headers, Timestamp: start},
			{Topic: name, Value: []byte("no key"), Timestamp: start.Add(time.Second)},
			{Topic: name, Key: []byte("no value"), Timestamp: start.Add(2 * time.Second)},
			{Topic: name, Key: []byte{}, Value: []byte{}, Timestamp: start.Add(3 * time.Second)},
			{Topic: name, Timestamp: start.Add(4 * time.Second)},
		}
		if err := client.ProduceSync(ctx, sent...).FirstErr(); err != nil {
			return err
		}
		came, err := read(ctx, bootstrap, name, 0, 0, len(sent))
		if err != nil {
			return err
		}
		for index, record := range sent {
			got := came[index]
			if err := errors.Join(
				wanted("key", record.Key, got.Key),
				wanted("value", record.Value, got.Value),
				wanted("time", record.Timestamp.UnixMilli(), got.Timestamp.UnixMilli()),
				wanted("headers", len(record.Headers), len(got.Headers)),
			); err != nil {
				return fmt.Errorf("record %d: %w", index, err)
			}
		}
		return wanted("headers", headers, came[0].Headers)
	})
}

// keys prints where each key went; the caller knows where Java would put it.
func keys(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 7, func(client *kgo.Client, _ *kadm.Client) error {
		records := make([]*kgo.Record, 100)
		for number := range records {
			records[number] = &kgo.Record{Topic: name, Key: fmt.Appendf(nil, "key-%d", number%50), Value: []byte("v")}
		}
		if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return err
		}
		for _, record := range records {
			fmt.Printf("%s %d\n", record.Key, record.Partition)
		}
		return nil
	})
}

func oversized(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 1, func(client *kgo.Client, admin *kadm.Client) error {
		limit := "100000"
		changes := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &limit}}
		if _, err := admin.AlterTopicConfigs(ctx, changes, name); err != nil {
			return err
		}
		// The setting may take a moment to be there.
		return until(ctx, "the refusal", func() (bool, error) {
			err := client.ProduceSync(ctx, &kgo.Record{Topic: name, Value: make([]byte, 200_000)}).FirstErr()
			if err == nil {
				return false, nil
			}
			return true, wantedError("a large record", kerr.MessageTooLarge, err)
		})
	}, kgo.ProducerBatchCompression(kgo.NoCompression()))
}

func resume(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 1, func(client *kgo.Client, _ *kadm.Client) error {
		if err := client.ProduceSync(ctx, numbered(name, 20)...).FirstErr(); err != nil {
			return err
		}
		var offsets []int64
		for _, count := range []int{7, 13} {
			reader, _, err := connect(
				bootstrap, kgo.ConsumeTopics(name), kgo.ConsumerGroup(name), kgo.DisableAutoCommit(),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			)
			if err != nil {
				return err
			}
			records, err := take(ctx, reader, count)
			if err == nil {
				err = reader.CommitRecords(ctx, records...)
			}
			reader.Close()
			if err != nil {
				return err
			}
			for _, record := range records {
				offsets = append(offsets, record.Offset)
			}
		}
		for index, offset := range offsets {
			if offset != int64(index) {
				return fmt.Errorf("offsets %v", offsets)
			}
		}
		return nil
	})
}

func offsetMetadata(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 2, func(_ *kgo.Client, admin *kadm.Client) error {
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: name, Partition: 0, At: 5, LeaderEpoch: -1, Metadata: "node-1 ✓"})
		if err := admin.CommitAllOffsets(ctx, name, offsets); err != nil {
			return err
		}
		found, err := admin.FetchOffsetsForTopics(ctx, name, name)
		if err != nil {
			return err
		}
		first, _ := found.Lookup(name, 0)
		second, _ := found.Lookup(name, 1)
		return errors.Join(
			wanted("offset", int64(5), first.At),
			wanted("metadata", "node-1 ✓", first.Metadata),
			wanted("no offset", int64(-1), second.At),
		)
	})
}

// produceTimes writes count records, a second apart.
func produceTimes(ctx context.Context, client *kgo.Client, topic string, count int) error {
	records := numbered(topic, count)
	for number, record := range records {
		record.Timestamp = start.Add(time.Duration(number) * time.Second)
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}

func times(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 1, func(client *kgo.Client, admin *kadm.Client) error {
		if err := produceTimes(ctx, client, name, 100); err != nil {
			return err
		}
		at := start.Add(50*time.Second + time.Millisecond).UnixMilli()
		found, err := admin.ListOffsetsAfterMilli(ctx, at, name)
		if err != nil {
			return err
		}
		place, _ := found.Lookup(name, 0)
		if err := wanted("offset by time", int64(51), place.Offset); err != nil {
			return err
		}
		from := map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().AfterMilli(at)}}
		reader, _, err := connect(bootstrap, kgo.ConsumePartitions(from))
		if err != nil {
			return err
		}
		defer reader.Close()
		records, err := take(ctx, reader, 1)
		if err != nil {
			return err
		}
		return wanted("first record by time", int64(51), records[0].Offset)
	})
}

func listOffsets(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 1, func(client *kgo.Client, admin *kadm.Client) error {
		if err := produceTimes(ctx, client, name, 10); err != nil {
			return err
		}
		for what, list := range map[string]struct {
			ask  func(context.Context, ...string) (kadm.ListedOffsets, error)
			want int64
		}{
			"start":        {admin.ListStartOffsets, 0},
			"end":          {admin.ListEndOffsets, 10},
			"committed":    {admin.ListCommittedOffsets, 10},
			"highest time": {admin.ListMaxTimestampOffsets, 9},
		} {
			found, err := list.ask(ctx, name)
			if err != nil {
				return err
			}
			place, _ := found.Lookup(name, 0)
			if err := errors.Join(place.Err, wanted(what, list.want, place.Offset)); err != nil {
				return err
			}
		}
		return nil
	})
}

func unknownTopic(ctx context.Context, bootstrap, name string) error {
	client, admin, err := connect(bootstrap, kgo.ConsumeTopics(name), kgo.UnknownTopicRetries(0))
	if err != nil {
		return err
	}
	defer client.Close()
	found, err := admin.ListTopics(ctx, name)
	if err != nil {
		return err
	}
	produced := client.ProduceSync(ctx, &kgo.Record{Topic: name, Value: []byte("v")}).FirstErr()
	return errors.Join(
		wantedError("describing", kerr.UnknownTopicOrPartition, found[name].Err),
		wantedError("producing", kerr.UnknownTopicOrPartition, produced),
	)
}

func pastTheEnd(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 1, func(client *kgo.Client, _ *kadm.Client) error {
		if err := client.ProduceSync(ctx, numbered(name, 3)...).FirstErr(); err != nil {
			return err
		}
		place := map[string]map[int32]kgo.Offset{name: {0: kgo.NewOffset().At(1000)}}
		reader, _, err := connect(bootstrap, kgo.ConsumePartitions(place), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
		if err != nil {
			return err
		}
		defer reader.Close()
		_, err = take(ctx, reader, 1)
		return wantedError("reading past the end", kerr.OffsetOutOfRange, err)
	})
}

func topics(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 3, func(_ *kgo.Client, admin *kadm.Client) error {
		_, again := admin.CreateTopic(ctx, 1, 1, nil, name)
		found, err := admin.ListTopics(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(
			wantedError("making it again", kerr.TopicAlreadyExists, again),
			wanted("partitions", 3, len(found[name].Partitions)),
			wanted("internal", false, found[name].IsInternal),
		); err != nil {
			return err
		}
		if found[name].ID == (kadm.TopicID{}) {
			return errors.New("the topic has no id")
		}
		if _, err := admin.DeleteTopic(ctx, name); err != nil {
			return err
		}
		if err := until(ctx, "the end of the topic", func() (bool, error) {
			found, err := admin.ListTopics(ctx)
			return !found.Has(name), err
		}); err != nil {
			return err
		}
		_, gone := admin.DeleteTopic(ctx, name)
		return wantedError("deleting it again", kerr.UnknownTopicOrPartition, gone)
	})
}

func impossibleTopics(ctx context.Context, bootstrap, name string) error {
	client, admin, err := connect(bootstrap)
	if err != nil {
		return err
	}
	defer client.Close()
	soon := "soon"
	_, slash := admin.CreateTopic(ctx, 1, 1, nil, "a/b")
	_, none := admin.CreateTopic(ctx, 0, 1, nil, name)
	_, replicas := admin.CreateTopic(ctx, 1, 7, nil, name)
	_, config := admin.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &soon}, name)
	validated, err := admin.ValidateCreateTopics(ctx, 1, 1, nil, name)
	if err != nil {
		return err
	}
	found, err := admin.ListTopics(ctx)
	return errors.Join(
		err,
		wantedError("a slash", kerr.InvalidTopicException, slash),
		wantedError("no partitions", kerr.InvalidPartitions, none),
		wantedError("many replicas", kerr.InvalidReplicationFactor, replicas),
		wantedError("a bad setting", kerr.InvalidConfig, config),
		wanted("validating", nil, validated[name].Err),
		wanted("a topic", false, found.Has(name)),
	)
}

func partitions(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 2, func(_ *kgo.Client, admin *kadm.Client) error {
		added, err := admin.UpdatePartitions(ctx, 4, name)
		if err := errors.Join(err, added[name].Err); err != nil {
			return err
		}
		if err := untilThere(ctx, admin, name, 4); err != nil {
			return err
		}
		fewer, err := admin.UpdatePartitions(ctx, 3, name)
		if err != nil {
			return err
		}
		return wantedError("taking one away", kerr.InvalidPartitions, fewer[name].Err)
	})
}

func configs(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 1, func(_ *kgo.Client, admin *kadm.Client) error {
		change := func(op kadm.IncrementalOp, key, value string) error {
			changed, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: op, Name: key, Value: &value}}, name)
			if err != nil {
				return err
			}
			return changed[0].Err
		}
		becomes := func(key, want string) error {
			return until(ctx, key+" as "+want, func() (bool, error) {
				found, err := admin.DescribeTopicConfigs(ctx, name)
				if err != nil {
					return false, err
				}
				for _, config := range found[0].Configs {
					if config.Key == key {
						return config.MaybeValue() == want, nil
					}
				}
				return false, fmt.Errorf("no %s among %d settings", key, len(found[0].Configs))
			})
		}
		return errors.Join(
			becomes("retention.ms", "604800000"),
			change(kadm.SetConfig, "retention.ms", "7654321"),
			becomes("retention.ms", "7654321"),
			change(kadm.AppendConfig, "cleanup.policy", "compact"),
			becomes("cleanup.policy", "delete,compact"),
			change(kadm.SubtractConfig, "cleanup.policy", "delete"),
			becomes("cleanup.policy", "compact"),
			change(kadm.DeleteConfig, "retention.ms", ""),
			becomes("retention.ms", "604800000"),
			wantedError("a bad value", kerr.InvalidConfig, change(kadm.SetConfig, "retention.ms", "soon")),
		)
	})
}

func groups(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 2, func(client *kgo.Client, admin *kadm.Client) error {
		if err := client.ProduceSync(ctx, numbered(name, 10)...).FirstErr(); err != nil {
			return err
		}
		reader, _, err := connect(
			bootstrap, kgo.ConsumeTopics(name), kgo.ConsumerGroup(name), kgo.ClientID("a-member"),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		)
		if err != nil {
			return err
		}
		defer reader.Close()
		records, err := take(ctx, reader, 10)
		if err == nil {
			err = reader.CommitRecords(ctx, records...)
		}
		if err != nil {
			return err
		}
		described, err := admin.DescribeGroups(ctx, name)
		if err != nil {
			return err
		}
		group := described[name]
		listed, err := admin.ListGroups(ctx)
		if err != nil {
			return err
		}
		_, busy := admin.DeleteGroup(ctx, name)
		if err := errors.Join(
			wanted("state", "Stable", group.State),
			wanted("members", 1, len(group.Members)),
			wanted("client", "a-member", group.Members[0].ClientID),
			wanted("partitions", []int32{0, 1}, group.AssignedPartitions().Sorted()[0].Partitions),
			wanted("listed", "consumer", listed[name].ProtocolType),
			wantedError("deleting it with members", kerr.NonEmptyGroup, busy),
		); err != nil {
			return err
		}
		reader.Close()
		if err := until(ctx, "the empty group", func() (bool, error) {
			described, err := admin.DescribeGroups(ctx, name)
			return described[name].State == "Empty", err
		}); err != nil {
			return err
		}
		lags, err := admin.Lag(ctx, name)
		if err != nil {
			return err
		}
		_, deleted := admin.DeleteGroup(ctx, name)
		_, gone := admin.DeleteGroup(ctx, name)
		return errors.Join(
			wanted("lag", int64(0), lags[name].Lag.Total()),
			deleted,
			wantedError("deleting it again", kerr.GroupIDNotFound, gone),
		)
	})
}

func deleteRecords(ctx context.Context, bootstrap, name string) error {
	return withTopic(ctx, bootstrap, name, 1, func(client *kgo.Client, admin *kadm.Client) error {
		if err := client.ProduceSync(ctx, numbered(name, 10)...).FirstErr(); err != nil {
			return err
		}
		before := func(offset int64) (kadm.DeleteRecordsResponse, error) {
			offsets := kadm.Offsets{}
			offsets.AddOffset(name, 0, offset, -1)
			deleted, err := admin.DeleteRecords(ctx, offsets)
			response, _ := deleted.Lookup(name, 0)
			return response, err
		}
		four, err := before(4)
		if err != nil {
			return err
		}
		starts, err := admin.ListStartOffsets(ctx, name)
		if err != nil {
			return err
		}
		now, _ := starts.Lookup(name, 0)
		eleven, err := before(11)
		return errors.Join(
			err,
			wanted("first offset", int64(4), four.LowWatermark),
			wanted("first offset, listed", int64(4), now.Offset),
			wantedError("beyond the end", kerr.OffsetOutOfRange, eleven.Err),
		)
	})
}

func cluster(ctx context.Context, bootstrap, name string) error {
	client, admin, err := connect(bootstrap)
	if err != nil {
		return err
	}
	defer client.Close()
	metadata, err := admin.BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	versions, err := admin.ApiVersions(ctx)
	if err != nil {
		return err
	}
	if len(metadata.Brokers) != 1 || metadata.Cluster == "" {
		return fmt.Errorf("brokers %v of cluster %q", metadata.Brokers, metadata.Cluster)
	}
	broker := metadata.Brokers[0]
	return errors.Join(
		wanted("address", bootstrap, fmt.Sprintf("%s:%d", broker.Host, broker.Port)),
		wanted("controller", broker.NodeID, metadata.Controller),
		versions[broker.NodeID].Err,
	)
}
