// What is to work with KafkaJS: each check makes its own topic, named as it is told.
'use strict';

const assert = require('node:assert/strict');
const lz4 = require('lz4js');
const xxh32 = require('lz4js/xxh32.js');
const zstd = require('@bokuweb/zstd-wasm');
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes } = require('kafkajs');
const snappy = require('kafkajs-snappy');
const { consuming, producing } = require('./client.js');

CompressionCodecs[CompressionTypes.Snappy] = snappy;
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  // All in one block of up to 4 MiB, but lz4js does not say that its blocks do not need each other, and Kafka wants that:
  // bit 5 of the flags, and the byte behind the descriptor is its checksum.
  compress: async (encoder) => {
    const frame = Buffer.from(lz4.compress(encoder.buffer));
    frame[4] |= 0x20;
    frame[6] = (xxh32.hash(0, frame, 4, 2) >> 8) & 0xff;
    return frame;
  },
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => zstd.init().then(() => Buffer.from(zstd.compress(encoder.buffer))),
  decompress: async (buffer) => zstd.init().then(() => Buffer.from(zstd.decompress(buffer))),
});

// Within the week that a topic keeps its records by default.
const START_MS = Date.now() - 3600 * 1000;

const administering = async (kafka, work, settings) => {
  const admin = kafka.admin(settings);
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.disconnect();
  }
};

const withTopic = (kafka, topic, numPartitions, work, configEntries = []) =>
  administering(kafka, async (admin) => {
    await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: true });
    return work(admin);
  });

const until = async (look) => {
  while (!(await look())) await new Promise((resolve) => setTimeout(resolve, 50));
};

const numbered = (count, size = 500) =>
  Array.from({ length: count }, (_, number) => ({ value: `${number}:${'text '.repeat(size / 5)}` }));

const roundTrip = ({ count = 500, compression, acks = -1, ...settings }) => (kafka, topic) =>
  withTopic(kafka, topic, 1, async () => {
    const messages = numbered(count);
    await producing(kafka, settings, (producer) => producer.send({ topic, messages, compression, acks }));
    const taken = await consuming(kafka, { topic, group: topic, count });
    assert.deepEqual(taken.map(({ value }) => String(value)), messages.map(({ value }) => value));
    assert.deepEqual(taken.map(({ offset }) => Number(offset)), messages.map((_, number) => number));
  });

const fields = (kafka, topic) =>
  withTopic(kafka, topic, 1, async () => {
    const messages = [
      { key: 'key', value: 'value', timestamp: String(START_MS), headers: { one: '1', twice: ['1', '2'] } },
      { key: null, value: 'no key', timestamp: String(START_MS + 1) },
      { key: 'no value', value: null, timestamp: String(START_MS + 2) },
      { key: '', value: '', timestamp: String(START_MS + 3) },
    ];
    await producing(kafka, {}, (producer) => producer.send({ topic, messages }));
    const taken = await consuming(kafka, { topic, group: topic, count: messages.length });
    const text = (bytes) => (bytes === null ? null : String(bytes));
    assert.deepEqual(taken.map(({ key }) => text(key)), messages.map(({ key }) => key));
    assert.deepEqual(taken.map(({ value }) => text(value)), messages.map(({ value }) => value));
    assert.deepEqual(taken.map(({ timestamp }) => timestamp), messages.map(({ timestamp }) => timestamp));
    assert.equal(String(taken[0].headers.one), '1');
    assert.deepEqual(taken[0].headers.twice.map(String), ['1', '2']);
  });

// Prints where each key went; the caller knows where Java would put it.
const keys = (kafka, topic) =>
  withTopic(kafka, topic, 7, async () => {
    const messages = Array.from({ length: 100 }, (_, number) => ({ key: `key-${number % 50}`, value: 'v' }));
    await producing(kafka, {}, (producer) => producer.send({ topic, messages }));
    const taken = await consuming(kafka, { topic, group: topic, count: 100 });
    for (const { key, partition } of taken) console.log(`${key} ${partition}`);
  });

const oversized = (kafka, topic) =>
  withTopic(kafka, topic, 1, async () => {
    const large = { topic, messages: [{ value: Buffer.alloc(200_000) }] };
    await producing(kafka, {}, (producer) =>
      assert.rejects(producer.send(large), { type: 'MESSAGE_TOO_LARGE' }),
    );
  }, [{ name: 'max.message.bytes', value: '100000' }]);

const resume = (kafka, topic) =>
  withTopic(kafka, topic, 1, async (admin) => {
    await producing(kafka, {}, (producer) => producer.send({ topic, messages: numbered(20) }));
    const commit = (consumer, { partition, message }) =>
      consumer.commitOffsets([{ topic, partition, offset: String(Number(message.offset) + 1), metadata: 'node-1 ✓' }]);
    const first = await consuming(kafka, { topic, group: topic, count: 7 }, commit);
    const [{ partitions }] = await admin.fetchOffsets({ groupId: topic, topics: [topic] });
    assert.deepEqual(partitions, [{ partition: 0, offset: '7', metadata: 'node-1 ✓' }]);
    const second = await consuming(kafka, { topic, group: topic, count: 13 }, commit);
    assert.deepEqual([...first, ...second].map(({ offset }) => Number(offset)), [...Array(20).keys()]);
  });

const times = (kafka, topic) =>
  withTopic(kafka, topic, 1, async (admin) => {
    const messages = numbered(100).map((message, number) => ({ ...message, timestamp: String(START_MS + number * 1000) }));
    await producing(kafka, {}, (producer) => producer.send({ topic, messages }));
    const at = async (time) => Number((await admin.fetchTopicOffsetsByTimestamp(topic, time))[0].offset);
    assert.equal(await at(START_MS - 5), 0);
    assert.equal(await at(START_MS + 50_000), 50);
    assert.equal(await at(START_MS + 50_001), 51);
    assert.equal(await at(START_MS + 100_000), 100); // KafkaJS asks for the end itself when there is none
    assert.deepEqual(await admin.fetchTopicOffsets(topic), [{ partition: 0, offset: '100', high: '100', low: '0' }]);
  });

const seek = (kafka, topic) =>
  withTopic(kafka, topic, 1, async () => {
    await producing(kafka, {}, (producer) => producer.send({ topic, messages: numbered(100) }));
    const taken = await consuming(kafka, { topic, group: topic, count: 1, from: 42 });
    assert.equal(Number(taken[0].offset), 42);
  });

const unknownTopic = (kafka, topic) =>
  administering(kafka, async (admin) => {
    // As the cause, where KafkaJS would have tried again.
    const unknown = ({ type, cause }) => [type, cause?.type].includes('UNKNOWN_TOPIC_OR_PARTITION');
    await assert.rejects(admin.fetchTopicMetadata({ topics: [topic] }), unknown);
    await assert.rejects(admin.deleteTopics({ topics: [topic] }), unknown);
  }, { retry: { retries: 0 } });

const topics = (kafka, topic) =>
  withTopic(kafka, topic, 3, async (admin) => {
    assert.equal(await admin.createTopics({ topics: [{ topic }] }), false, 'it is there already');
    assert((await admin.listTopics()).includes(topic));
    const [{ partitions }] = (await admin.fetchTopicMetadata({ topics: [topic] })).topics;
    assert.deepEqual(partitions.map(({ partitionId }) => partitionId).sort(), [0, 1, 2]);
    await admin.deleteTopics({ topics: [topic] });
    await until(async () => !(await admin.listTopics()).includes(topic));
  });

const impossibleTopics = (kafka, topic) =>
  administering(kafka, async (admin) => {
    const refused = async (settings, type) =>
      assert.rejects(admin.createTopics({ topics: [{ topic, ...settings }] }), ({ errors }) => errors[0].type === type);
    await refused({ topic: 'a/b' }, 'INVALID_TOPIC_EXCEPTION');
    await refused({ numPartitions: 0 }, 'INVALID_PARTITIONS');
    await refused({ replicationFactor: 7 }, 'INVALID_REPLICATION_FACTOR');
    await refused({ configEntries: [{ name: 'retention.ms', value: 'soon' }] }, 'INVALID_CONFIG');
    await admin.createTopics({ validateOnly: true, waitForLeaders: false, topics: [{ topic }] });
    assert(!(await admin.listTopics()).includes(topic));
  });

const partitions = (kafka, topic) =>
  withTopic(kafka, topic, 2, async (admin) => {
    await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] });
    await until(async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length === 4);
    await assert.rejects(admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] }), { type: 'INVALID_PARTITIONS' });
  });

const configs = (kafka, topic) =>
  withTopic(kafka, topic, 1, async (admin) => {
    const resource = { type: ConfigResourceTypes.TOPIC, name: topic };
    const config = async (name) => {
      const { resources } = await admin.describeConfigs({ resources: [{ ...resource, configNames: [name] }] });
      return resources[0].configEntries[0].configValue;
    };
    assert.equal(await config('retention.ms'), '1234567');
    const alter = (name, value) => admin.alterConfigs({ resources: [{ ...resource, configEntries: [{ name, value }] }] });
    await alter('cleanup.policy', 'compact');
    await until(async () => (await config('cleanup.policy')) === 'compact');
    assert.equal(await config('retention.ms'), '604800000', 'the old call takes back what it does not name');
    await assert.rejects(alter('retention.ms', 'soon'), { type: 'INVALID_CONFIG' });
  }, [{ name: 'retention.ms', value: '1234567' }]);

const groups = (kafka, topic) =>
  withTopic(kafka, topic, 2, async (admin) => {
    await producing(kafka, {}, (producer) => producer.send({ topic, messages: numbered(10) }));
    const described = async () => (await admin.describeGroups([topic])).groups[0];
    await consuming(kafka, { topic, group: topic, count: 10 }, async (consumer, { partition, message }) => {
      await consumer.commitOffsets([{ topic, partition, offset: String(Number(message.offset) + 1) }]);
      const { state, members, protocol } = await described();
      assert.deepEqual([state, members.length, members[0].clientId, protocol], ['Stable', 1, 'kafkajs', 'RoundRobinAssigner']);
    });
    await until(async () => (await described()).state === 'Empty');
    assert((await admin.listGroups()).groups.some(({ groupId }) => groupId === topic));
    await admin.resetOffsets({ groupId: topic, topic, earliest: true });
    const [{ partitions }] = await admin.fetchOffsets({ groupId: topic, topics: [topic] });
    assert.deepEqual(partitions.map(({ offset }) => offset), ['-2', '-2']);
    await admin.deleteGroups([topic]);
    await assert.rejects(admin.deleteGroups([topic]), ({ groups }) => groups[0].error.type === 'GROUP_ID_NOT_FOUND');
  });

const deleteRecords = (kafka, topic) =>
  withTopic(kafka, topic, 1, async (admin) => {
    await producing(kafka, {}, (producer) => producer.send({ topic, messages: numbered(10) }));
    await admin.fetchTopicOffsets(topic); // KafkaJS has to know the topic before it can find its leaders
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] });
    assert.equal((await admin.fetchTopicOffsets(topic))[0].low, '4');
    const taken = await consuming(kafka, { topic, group: topic, count: 1 });
    assert.equal(taken[0].offset, '4');
  });

const cluster = (kafka, _, bootstrap) =>
  administering(kafka, async (admin) => {
    const { brokers, controller, clusterId } = await admin.describeCluster();
    assert.deepEqual(brokers.map(({ host, port }) => `${host}:${port}`), [bootstrap]);
    assert.equal(controller, brokers[0].nodeId);
    assert(clusterId);
  });

const checks = {
  'compression-none': roundTrip({ compression: CompressionTypes.None }),
  'compression-gzip': roundTrip({ compression: CompressionTypes.GZIP }),
  'compression-snappy': roundTrip({ compression: CompressionTypes.Snappy }),
  'compression-lz4': roundTrip({ compression: CompressionTypes.LZ4 }),
  'compression-zstd': roundTrip({ compression: CompressionTypes.ZSTD }),
  'acks-0': roundTrip({ acks: 0 }),
  'acks-1': roundTrip({ acks: 1 }),
  'acks-all': roundTrip({ acks: -1 }),
  'large-batches': roundTrip({ count: 1500 }),
  idempotent: roundTrip({ idempotent: true, maxInFlightRequests: 1 }),
  fields,
  keys,
  oversized,
  resume,
  times,
  seek,
  'unknown-topic': unknownTopic,
  topics,
  'impossible-topics': impossibleTopics,
  partitions,
  configs,
  groups,
  'delete-records': deleteRecords,
  cluster,
};

module.exports = { checks };
