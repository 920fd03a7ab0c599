package main

import (
	"context"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// produce writes values 0, 1, 2... to the first partition in small batches, idempotently, and ends when all of them are
// acknowledged.
func produce(bootstrap, topic, count string) error {
	number, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(512),
		kgo.MaxBufferedRecords(number),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	records := make([]*kgo.Record, number)
	for index := range records {
		records[index] = &kgo.Record{Topic: topic, Value: []byte(strconv.Itoa(index))}
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}
