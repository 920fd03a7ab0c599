// A client of the brokers under test, with KafkaJS.
//
//   node client.js check SUBJECT BOOTSTRAP NAME
//   node client.js member BOOTSTRAP TOPIC GROUP SESSION_TIMEOUT_MS HEARTBEAT_INTERVAL_MS
//   node client.js subjects
//
// check does one thing and says what was wrong; NAME begins the names of the topics and groups that it makes. member
// prints each value, then commits; SIGTERM makes it leave.
'use strict';

const { Kafka, Partitioners, logLevel } = require('kafkajs');

process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1';

const connect = (bootstrap, level = logLevel.NOTHING) =>
  new Kafka({ clientId: 'kafkajs', brokers: [bootstrap], logLevel: level, retry: { initialRetryTime: 50, retries: 10 } });

const producing = async (kafka, settings, work) => {
  // The default partitioner of KafkaJS 2 is Java's.
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...settings });
  await producer.connect();
  try {
    return await work(producer);
  } finally {
    await producer.disconnect();
  }
};

// The first `count` records that a new member of `group` gets, and the work to do with each.
const consuming = async (kafka, { topic, group, count, from }, each = async () => {}) => {
  const consumer = kafka.consumer({ groupId: group, maxWaitTimeInMs: 100 });
  await consumer.connect();
  try {
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    const taken = [];
    await new Promise((resolve, reject) => {
      consumer.on(consumer.events.CRASH, ({ payload }) => payload.restart || reject(payload.error));
      consumer
        .run({
          autoCommit: false,
          eachMessage: async ({ partition, message }) => {
            if (taken.length === count) return;
            taken.push({ partition, ...message });
            await each(consumer, { topic, partition, message });
            if (taken.length === count) resolve();
          },
        })
        .then(() => from === undefined || consumer.seek({ topic, partition: 0, offset: String(from) }), reject);
    });
    return taken;
  } finally {
    await consumer.disconnect();
  }
};

const member = async (bootstrap, topic, group, sessionTimeout, heartbeatInterval) => {
  const consumer = connect(bootstrap).consumer({
    groupId: group,
    sessionTimeout: Number(sessionTimeout),
    heartbeatInterval: Number(heartbeatInterval),
    rebalanceTimeout: 10000,
    maxWaitTimeInMs: 100,
  });
  process.once('SIGTERM', async () => {
    await consumer.disconnect();
    process.exit(0);
  });
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  // Offsets are committed behind what was resolved, and so behind what was printed.
  await consumer.run({
    autoCommitInterval: 100,
    eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
      for (const message of batch.messages) {
        if (!isRunning() || isStale()) break;
        require('fs').writeSync(1, `${message.value}\n`);
        resolveOffset(message.offset);
      }
      await heartbeat();
    },
  });
};

const main = async ([command, ...rest]) => {
  const { checks } = require('./checks.js');
  if (command === 'subjects') {
    console.log(Object.keys(checks).join('\n'));
  } else if (command === 'member' && rest.length === 5) {
    await member(...rest);
  } else if (command === 'check' && rest.length === 3 && checks[rest[0]]) {
    await checks[rest[0]](connect(rest[1]), rest[2], rest[1]);
  } else {
    throw new Error('usage: check SUBJECT BOOTSTRAP NAME | member BOOTSTRAP TOPIC GROUP SESSION_MS HEARTBEAT_MS | subjects');
  }
};

module.exports = { connect, consuming, producing };

if (require.main === module) {
  main(process.argv.slice(2)).catch((error) => {
    console.error(error);
    process.exit(1);
  });
}
